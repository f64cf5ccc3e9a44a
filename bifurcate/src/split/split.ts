// Gives chosen flows of a card to user space, as a transaction: all of it, or nothing changed.

import { nativeKernel } from "@bifurcate/control/native";
import { leaseSplit } from "../lease/leased-split.js";
import { findBroker } from "../lease/via.js";
import type { Port } from "../port.js";
import { splitByFunction } from "./vf.js";
import { LiveSplit } from "./live.js";
import { readSplitOptions, type SplitOptions } from "./options.js";

/**
 * Splits a card: from here on the flows arrive in user space, everything else stays with the kernel.
 *
 * ```ts
 * const port = await split("eth0", { flows: ["udp dst port 53"] });
 * await port.run({ file: "dns.ts" });
 * await port.close();
 * ```
 * A card that changes meanwhile (`ethtool -L`, an MTU that needs another way) is split anew, and what runs on the
 * port begins again: `port.path` is the new one, `port.stats` count on, kept frames are lost.
 *
 * @param ifname The interface.
 * @throws BifurcateError; nothing is changed then. docs/errors.md lists the codes.
 */
export async function split(ifname: string, options: SplitOptions): Promise<Port> {
  const checked = readSplitOptions(ifname, options);
  if (checked.backend === "vf") return splitByFunction(nativeKernel(), ifname, checked);
  const broker = await findBroker(ifname, checked);
  if (broker !== null) return leaseSplit(broker, ifname, checked);
  return new LiveSplit(nativeKernel(), ifname, checked).open();
}
