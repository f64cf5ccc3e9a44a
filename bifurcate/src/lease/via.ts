// Who opens a split: the broker, where there is one and it can, or this process.

import { existsSync } from "node:fs";
import { BifurcateError } from "@bifurcate/control/errors";
import { nativeKernel } from "@bifurcate/control/native";
import { openNetns } from "@bifurcate/control/prepare";
import { brokerSocket } from "@bifurcate/control/broker/socket";
import { BrokerConnection } from "@bifurcate/control/protocol/client";
import type { SplitOptions } from "../split/options.js";

/** What no broker does for its clients, in words; null when the options ask for nothing of it. */
function onlyInProcess(options: SplitOptions): string | null {
  if (options.backend === "af_packet") return "backend 'af_packet'";
  if (options.mode !== undefined && options.mode !== "auto") return "mode";
  if (options.steering === "lease") return "steering 'lease'";
  const { metadata = false } = options;
  if (metadata === true || (metadata !== false && metadata.length > 0)) return "metadata";
  if (options.force === true) return "force";
  if (options.tap === true) return "tap: true (a file works)";
  if (options.confirmSeconds !== undefined && options.confirmSeconds !== null) return "confirmSeconds";
  if (typeof options.queues === "object") return "a list of queues (a number works)";
  return null;
}

/** The namespace that the options are about. */
function netnsInode(options: SplitOptions): number {
  const netns = openNetns(nativeKernel(), options.netns ?? null);
  try {
    return netns.inode;
  } finally {
    netns.close();
  }
}

/**
 * Connects to the broker that is to open the split; null when this process does it itself.
 *
 * "auto": the broker, when one listens, serves the namespace that is asked about, and is asked for nothing that only a
 * process with rights of its own can do.
 *
 * @throws E_NO_BROKER, E_BAD_OPTION with "broker"; E_BROKER_PROTOCOL, E_BROKER_FULL.
 */
export async function findBroker(ifname: string, options: SplitOptions): Promise<BrokerConnection | null> {
  const { via = "auto" } = options;
  if (via === "in-process") return null;
  const alone = onlyInProcess(options);
  if (via === "broker") {
    if (alone !== null) {
      const what = `lease a flow of ${ifname}`;
      throw new BifurcateError("E_BAD_OPTION", { what, why: `a broker does not do ${alone}` });
    }
    return BrokerConnection.connect();
  }
  if (alone !== null || !existsSync(brokerSocket())) return null;
  const connection = await BrokerConnection.connect().catch((thrown: unknown) => {
    // A socket that a dead broker has left.
    if (thrown instanceof BifurcateError && thrown.code === "E_NO_BROKER") return null;
    throw thrown;
  });
  if (connection === null || connection.welcome.netns === netnsInode(options)) return connection;
  connection.close();
  return null;
}
