// A card by a broker's right: the broker opens it and maps its memory, this process drives it.

import type { Descriptor } from "@bifurcate/addon";
import { wrapError } from "@bifurcate/control/errors";
import { cardError } from "@bifurcate/control/card/errors";
import { BrokerConnection } from "@bifurcate/control/protocol/client";
import type { CardMemory, GrantedLease, LeaseRequest } from "@bifurcate/control/protocol/messages";
import { LeaseHold } from "../lease/hold.js";
import type { CardSpec } from "./spec.js";

/** A lease that is held, until it is ended or taken back. */
export interface CardHold {
  /** Resolves with why, when it is taken back: with the grant already, it may be. */
  readonly lost: Promise<string>;
  /** Gives it back, and closes the connection. For after the card is closed. */
  end(): Promise<void>;
}

/** A card that was leased and opened. */
export interface LeasedCard<N> {
  readonly native: N;
  readonly lease: GrantedLease;
  readonly hold: CardHold;
}

/** An address that parseCardSpec let through, in full, as the policy writes it: 1:0.0 is 0000:01:00.0. */
function inFull(address: string): string {
  const [slot = "", bus = "", domain = ""] = address.toLowerCase().split(":").reverse();
  return `${domain.padStart(4, "0")}:${bus.padStart(2, "0")}:${slot.padStart(4, "0")}`;
}

function requestOf(spec: CardSpec): LeaseRequest {
  const { address, queues, frames, frameSize, ringSize } = spec;
  return {
    device: inFull(address),
    flows: [],
    mechanism: "vfio",
    transmit: "raw",
    pass: false,
    queues,
    frames,
    frameSize,
    ringSize,
    zeroCopy: "prefer",
    busyPoll: false,
    pages: "auto",
  };
}

/**
 * Leases a card, and opens it.
 * @throws E_NO_BROKER, E_LEASE_DENIED, E_CARD_BUSY, E_CARD_NOT_TAKEN and what else the broker answers; nothing is left then.
 */
export async function leaseCard<N>(
  spec: CardSpec,
  what: string,
  open: (lent: CardMemory, device: Descriptor, memory: Descriptor) => N,
): Promise<LeasedCard<N>> {
  const broker = await BrokerConnection.connect();
  try {
    const { lease, device, memory } = await broker.leaseCard(requestOf(spec));
    let native: N;
    try {
      native = open(lease.card!, device as Descriptor, memory as Descriptor);
    } catch (thrown) {
      // Who opens takes them, at some point: what is taken is closed already.
      (device as Descriptor).close();
      (memory as Descriptor).close();
      throw cardError(thrown, what);
    }
    let lose: (why: string) => void = () => undefined;
    const lost = new Promise<string>((resolve) => (lose = resolve));
    const held = new LeaseHold(broker, lease.id, lose);
    const hold: CardHold = {
      lost,
      end: async () => {
        await held.return();
        held.close();
      },
    };
    return { native, lease, hold };
  } catch (thrown) {
    broker.close();
    throw wrapError(thrown, what);
  }
}
