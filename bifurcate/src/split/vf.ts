// A split by a virtual function: the card makes one, our own driver has it, and undo takes it away again.

import { openPci, takeQueue } from "@bifurcate/addon";
import { beginSplit } from "@bifurcate/control/begin";
import { BifurcateError, messageOf, wrapError } from "@bifurcate/control/errors";
import type { Kernel } from "@bifurcate/control/kernel";
import type { Plan } from "@bifurcate/control/steering/plan";
import { machineBus } from "@bifurcate/control/card/bus";
import { cardError } from "@bifurcate/control/card/errors";
import { checkDriver } from "@bifurcate/control/card/take";
import { compileAny, encodeProgram } from "@bifurcate/control/steering/rules/index";
import { watchCard } from "../card/watch.js";
import type { NativePort } from "../native.js";
import { FRAMES_A_QUEUE, FRAME_SIZE } from "../pool.js";
import { Port } from "../port.js";
import { withTapFile } from "../tap-file.js";
import type { SplitOptions } from "./options.js";

/** Tries to open a virtual function, and the time between them. */
const ATTEMPTS = 6;
const AGAIN_MS = 500;

/** Slots of each ring. */
const RING_SIZE = 512;

/**
 * Splits a card by a virtual function.
 * @throws E_BAD_OPTION, E_NO_VF, E_NO_DRIVER, and what beginSplit, the transaction and opening a card throw; nothing is
 *   changed then.
 */
export async function splitByFunction(kernel: Kernel, ifname: string, options: SplitOptions): Promise<Port> {
  const { flows, netns, queues, steering, force, tap, confirmSeconds, stateDirectory, pass } = options;
  const what = `split ${ifname} by a virtual function`;
  if (tap === true) {
    const why = "tcpdump sees no virtual function that is not the kernel's";
    throw new BifurcateError("E_BAD_OPTION", { what, why, next: "Give a file to write the frames to." });
  }
  if (pass === true) {
    const why = "the kernel has no interface with the virtual function's address";
    throw new BifurcateError("E_NO_PASS", { what, why });
  }
  const begun = await beginSplit(kernel, {
    ifname,
    flows: typeof flows === "string" ? [flows] : flows,
    backend: "vf",
    netns,
    queues,
    steering,
    force,
    confirmSeconds,
    stateDirectory,
  });
  const { prepared, transaction } = begun;
  const { plan } = prepared;
  let native: NativePort | undefined;
  let shut: (() => Promise<void>) | undefined;
  let port: Port | undefined;
  const warn = (text: string): void => options.onWarning?.(text);
  try {
    await transaction.apply({
      open: async () => {
        native = await openWhenReady(plan, options);
      },
      close: async () => {
        let failure: unknown = null;
        try {
          await shut?.();
        } catch (thrown) {
          failure = thrown;
        }
        const held = (await native?.close(0)) ?? [];
        if (held.length > 0) {
          const why = `a handler still has its queue: the virtual function stays until it returns, or this process ends`;
          throw new BifurcateError("E_HANDLER_HANGS", { what: `close ${ifname}`, why, cause: failure });
        }
        if (failure !== null) throw failure;
      },
      expired: () => {
        port?.fail(new BifurcateError("E_NOT_CONFIRMED", { what, why: "it was not confirmed in time" }));
        void port?.close().catch((error: unknown) => warn(messageOf(error)));
      },
      guardianLost: (error) => warn(`${error.message}; if this process dies now, the virtual function stays`),
    });
    port = portOver(plan, native!, transaction, (closing) => {
      shut = closing;
      return transaction.undo().then(() => prepared.netns.close());
    });
    return port;
  } catch (thrown) {
    prepared.netns.close();
    throw wrapError(thrown, what);
  }
}

/**
 * As openFunction, as often as it takes the card: making the first virtual function resets it, and its driver answers
 * virtual functions only when it is up again.
 * @throws what openFunction throws; E_CARD_FAILED after ATTEMPTS.
 */
async function openWhenReady(plan: Plan, options: SplitOptions): Promise<NativePort> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return openFunction(plan, options);
    } catch (thrown) {
      const passing = thrown instanceof BifurcateError && thrown.code === "E_CARD_FAILED";
      if (!passing || attempt === ATTEMPTS) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

/** Takes the virtual function that was made, and starts it. Its binding goes with it, so nothing is written down. */
function openFunction(
  plan: Plan,
  { tap, busyPoll = false, frames, pages = "auto" }: SplitOptions,
): NativePort {
  const bus = machineBus();
  const what = `open a virtual function of ${plan.device.name}`;
  try {
    const [address] = bus.function(plan.device.bus).virtualFunctions;
    if (address === undefined) {
      throw new BifurcateError("E_NOT_VERIFIED", { what, why: "the card made none" });
    }
    checkDriver(bus, "vfio", what);
    bus.bind(address, "vfio-pci");
    const file = typeof tap === "string" ? tap : undefined;
    return withTapFile(file, () =>
      openPci({
        address,
        via: "vfio",
        noMemoryProtection: false,
        queues: 1,
        frames: frames ?? FRAMES_A_QUEUE,
        frameSize: FRAME_SIZE,
        jumboFrames: 0,
        ringSize: RING_SIZE,
        pages,
        promiscuous: false,
        interrupts: !busyPoll,
        packed: false,
        filter: encodeProgram(compileAny(plan.flows).program),
        ...(file === undefined ? {} : { tap: file }),
      }),
    );
  } catch (thrown) {
    throw cardError(thrown, what);
  }
}

function portOver(
  plan: Plan,
  native: NativePort,
  transaction: { readonly id: string; confirm(): void },
  close: (shut: () => Promise<void>) => Promise<unknown>,
): Port {
  const { path, notes, bypasses } = plan;
  const port = new Port(
    { native, name: plan.device.name, takeQueue },
    {
      path: {
        backend: "vf",
        queues: path.queues,
        mode: "zero-copy",
        xdp: null,
        steering: "mac",
        obtained: native.obtained,
        metadata: path.metadata,
        notes,
      },
      id: transaction.id,
      bypasses,
      confirm: () => transaction.confirm(),
      close: async (shut) => {
        watch.stop();
        await close(shut);
      },
    },
  );
  const watch = watchCard(port, native);
  return port;
}
