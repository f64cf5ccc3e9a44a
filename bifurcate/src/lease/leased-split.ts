// A split through a broker: a port over descriptors that were passed, with no right of this process's own.

import { openLease, takeQueue } from "@bifurcate/addon";
import { BifurcateError, wrapError } from "@bifurcate/control/errors";
import type { BrokerConnection, ReceivedLease } from "@bifurcate/control/protocol/client";
import type { GrantedLease, LeaseRequest } from "@bifurcate/control/protocol/messages";
import { xdpMetadata } from "@bifurcate/control/steering/metadata";
import { FRAMES_A_QUEUE, FRAME_SIZE, poolFrames } from "../pool.js";
import { Port, type PortPath } from "../port.js";
import type { SplitOptions } from "../split/options.js";
import { LeaseHold } from "./hold.js";

const RING_SIZE = 2048;
/** Milliseconds between two looks whether the port is still there. */
const LOOK_MS = 1_000;

function requestOf(device: string, options: SplitOptions): LeaseRequest {
  const { flows, queues = 1, frames = FRAMES_A_QUEUE, pages = "auto" } = options;
  const count = typeof queues === "number" ? queues : queues.length;
  return {
    device,
    flows: typeof flows === "string" ? [flows] : flows,
    mechanism: options.steering === "shared" ? "port" : "auto",
    transmit: options.transmit ?? "own",
    pass: options.pass === true,
    queues: count,
    frames: poolFrames(`lease a flow of ${device}`, frames, count),
    frameSize: FRAME_SIZE,
    ringSize: RING_SIZE,
    zeroCopy: options.zeroCopy ?? "prefer",
    busyPoll: options.busyPoll ?? false,
    pages,
  };
}

/**
 * Leases the flows from a broker and opens them as a port.
 * @param broker The connection; the port closes it with itself.
 * @throws E_LEASE_DENIED, E_FLOW_TAKEN, E_LEASE_UNSUPPORTED and what else the broker answers; nothing is left then.
 */
export async function leaseSplit(
  broker: BrokerConnection,
  ifname: string,
  options: SplitOptions,
): Promise<Port> {
  try {
    const received = await broker.lease(requestOf(ifname, options));
    return new LeasedSplit(broker, received, options).port;
  } catch (thrown) {
    broker.close();
    throw wrapError(thrown, `lease a flow of ${ifname}`);
  }
}

/** One lease, from its descriptors to its end. */
class LeasedSplit {
  readonly port: Port;
  private readonly lease: GrantedLease;
  private readonly timer: NodeJS.Timeout;
  private readonly hold: LeaseHold;

  constructor(
    broker: BrokerConnection,
    received: ReceivedLease,
    private readonly options: SplitOptions,
  ) {
    const { lease } = received;
    this.lease = lease;
    const { frames, frameSize, jumboFrames, ringSize, filled, zeroCopy, multiBuffer } = lease;
    const { needWakeup, busyPoll, leftToCard, mtu } = lease;
    const native = openLease(
      {
        name: lease.device,
        frames,
        frameSize,
        jumboFrames,
        ringSize,
        filled,
        transmit: lease.transmit !== "none",
        zeroCopy,
        multiBuffer,
        needWakeup,
        busyPoll,
        leftToCard,
        mtu,
        ...(typeof options.tap === "string" ? { tap: options.tap } : {}),
      },
      received.sockets as never,
      received.memory as never,
      received.ways as never,
    );
    const path: PortPath = {
      backend: "af_xdp",
      queues: lease.portQueues,
      mode: lease.zeroCopy ? "zero-copy" : "copy",
      xdp: lease.xdp,
      steering: "lease",
      obtained: native.obtained,
      metadata: xdpMetadata([], () => "a lease's program asks no driver"),
      notes: [
        ...lease.notes,
        ...(lease.transmit === "none" ? ["the verdict send drops: the lease may not transmit"] : []),
        ...(lease.pass ? [] : ["the verdict pass drops: it was not asked for (pass: true)"]),
      ],
    };
    this.port = new Port(
      { native, name: lease.device, takeQueue },
      {
        path,
        id: lease.id,
        bypasses: lease.bypasses,
        confirm: () => undefined,
        close: (shut) => this.close(shut),
      },
    );
    this.timer = setInterval(() => {
      if (native.state() === "gone") this.hold.lose("its port is gone");
    }, LOOK_MS);
    this.timer.unref();
    this.hold = new LeaseHold(broker, lease.id, (why) => this.fail(why));
  }

  private fail(why: string): void {
    clearInterval(this.timer);
    this.options.onWarning?.(`the lease ${this.lease.id} was taken back: ${why}`);
    const what = `use the lease ${this.lease.id} of ${this.lease.device}`;
    this.port.fail(new BifurcateError("E_LEASE_REVOKED", { what, why }));
  }

  private async close(shut: () => Promise<void>): Promise<void> {
    clearInterval(this.timer);
    try {
      // The kernel has the flow before the device is closed.
      await this.hold.return();
      await shut();
    } finally {
      this.hold.close();
    }
  }
}
