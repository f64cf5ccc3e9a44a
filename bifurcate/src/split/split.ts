// Gives chosen flows of a card to user space, as a transaction: all of it, or nothing changed.

import { takeQueue } from "@bifurcate/addon";
import {
  beginSplit,
  BifurcateError,
  nativeKernel,
  wrapError,
  type BegunSplit,
  type Kernel,
  type PrepareOptions,
  type Refusal,
} from "@bifurcate/control";
import { Port, type PortPath } from "../port.js";
import type { SplitOptions } from "./options.js";
import { PacketPath } from "./packet-path.js";
import type { AddonNetns, SplitPath } from "./path.js";
import { Refused } from "./refused.js";
import { SplitWatch } from "./watch.js";
import { XdpPath } from "./xdp-path.js";

/** The ladder has three rungs: driver mode, generic mode, AF_PACKET. */
const STEPS_DOWN = 3;

/**
 * Splits a card: from here on the flows arrive in user space, everything else stays with the kernel.
 *
 * ```ts
 * const port = await split("eth0", { flows: ["udp dst port 53"] });
 * await port.run({ file: "dns.ts" });
 * await port.close();
 * ```
 * @param ifname The interface.
 * @throws BifurcateError; nothing is changed then. docs/errors.md lists the codes.
 */
export async function split(ifname: string, options: SplitOptions): Promise<Port> {
  const kernel = nativeKernel();
  const avoid: Refusal[] = [];
  for (;;) {
    try {
      return await attempt(kernel, ifname, options, avoid);
    } catch (thrown) {
      const refused = refusalOf(thrown);
      if (refused === null || avoid.length >= STEPS_DOWN) throw wrapError(thrown, `split ${ifname}`);
      avoid.push(refused);
    }
  }
}

/** What the transaction threw, when it was a refused way; it may have been wrapped. */
function refusalOf(thrown: unknown): Refusal | null {
  for (let error = thrown; error instanceof Error; error = error.cause) {
    if (error instanceof Refused) return error.refusal;
  }
  return null;
}

function request(ifname: string, options: SplitOptions, avoid: readonly Refusal[]): PrepareOptions {
  const { flows, netns, queues, backend, zeroCopy, mode, steering, force, tap } = options;
  return {
    ifname,
    flows: typeof flows === "string" ? [flows] : flows,
    netns,
    queues,
    backend,
    zeroCopy,
    mode,
    steering,
    force,
    tap: tap !== undefined && tap !== false,
    confirmSeconds: options.confirmSeconds,
    stateDirectory: options.stateDirectory,
    avoid,
  };
}

async function attempt(
  kernel: Kernel,
  ifname: string,
  options: SplitOptions,
  avoid: readonly Refusal[],
): Promise<Port> {
  const begun = await beginSplit(kernel, request(ifname, options, avoid));
  try {
    return await apply(kernel, begun, options);
  } catch (thrown) {
    begun.prepared.netns.close();
    throw thrown;
  }
}

async function apply(kernel: Kernel, begun: BegunSplit, options: SplitOptions): Promise<Port> {
  const { prepared, transaction } = begun;
  const { plan, netns } = prepared;
  // The control path knows the addon's namespaces by their interface alone.
  const own = netns as unknown as AddonNetns;
  const way: SplitPath =
    plan.path.backend === "af_xdp"
      ? new XdpPath(kernel, own, plan, options)
      : new PacketPath(kernel, own, plan, options);
  const warn = options.onWarning ?? (() => undefined);
  // Made when the transaction is through; its events can only come later.
  let port: Port | undefined = undefined as Port | undefined;
  let shutDevice: (() => Promise<void>) | undefined;
  await transaction.apply({
    open: () => way.open(),
    close: async () => {
      way.detach();
      await shutDevice?.();
      await way.close();
    },
    expired: () => {
      const what = `split ${plan.device.name}`;
      port?.fail(new BifurcateError("E_NOT_CONFIRMED", { what, why: "it was not confirmed in time" }));
      void port?.close().catch((error: unknown) => warn(String(error)));
    },
    guardianLost: (error) => warn(`${error.message}; if this process dies now, settings stay behind`),
  });
  for (const text of plan.warnings) warn(text);
  if (options.tap === true) warn("tcpdump cannot see the flow yet: name a file to write it to");
  const native = way.native!;
  const watch = new SplitWatch(transaction, prepared, way, own, { warn, fail: (error) => port?.fail(error) });
  port = new Port(
    { native, name: plan.device.name, takeQueue },
    {
      path: pathOf(begun, way),
      id: transaction.id,
      bypasses: plan.bypasses,
      confirm: () => transaction.confirm(),
      async close(shut) {
        watch.stop();
        shutDevice = shut;
        try {
          await transaction.undo();
        } finally {
          netns.close();
        }
      },
    },
  );
  watch.start();
  return port;
}

/** The path that was obtained: what was planned, and what the kernel made of it. */
function pathOf({ prepared: { plan } }: BegunSplit, way: SplitPath): PortPath {
  const { path, ladder } = plan;
  const { obtained } = way.native!;
  const down = ladder
    .slice(
      0,
      ladder.findIndex((rung) => rung.taken),
    )
    .map((rung) => `no ${rung.name}: ${rung.why}`);
  return {
    backend: path.backend,
    queues: path.queues,
    mode: obtained.zeroCopy ? "zero-copy" : "copy",
    xdp: path.mode,
    steering: path.steering,
    obtained,
    notes: [
      ...down,
      ...plan.notes,
      ...obtained.refused.map((why) => `the kernel refused: ${why}`),
      ...way.notes,
    ],
  };
}
