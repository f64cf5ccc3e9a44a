// What is so of a lease that was taken back, when the broker has answered: of each kind what is true of it.

import type { ListedLease } from "@bifurcate/control/protocol/messages";

/** A lease that was taken back. What is not known of it, since the broker's list was not to be had, is null. */
export interface EndedLease {
  readonly id: string;
  readonly device: string | null;
  readonly mechanism: ListedLease["mechanism"] | null;
  /** Now: free, which is gone from the broker's list, draining, or revoked, of which not all is taken away yet. */
  readonly state: ListedLease["state"] | null;
  /** What it may send. */
  readonly transmit: ListedLease["transmit"] | null;
}

/** A line of it. */
export function endedWords(lease: EndedLease): string {
  return `${lease.id}: ${wordsOf(lease)}\n`;
}

function wordsOf(lease: EndedLease): string {
  const { device, mechanism, state } = lease;
  if (state === "revoked") return UNDONE;
  if (device === null || mechanism === null || state === null) return "it was taken back";
  return mechanism === "vfio" ? cardWords(device, state) : flowWords(lease);
}

function flowWords({ state, mechanism, transmit }: EndedLease): string {
  const flow = "its flow is with the kernel";
  if (state !== "draining") return flow;
  if (mechanism !== "queue") return `${flow}; its port stays until the last copy of its socket is closed`;
  const sends = transmit === "raw" ? ", and can be sent from that long" : "";
  return `${flow}; its queue is nobody else's until the last copy of its socket is closed${sends}`;
}

/** A card has no flow to give back: it stays with vfio-pci, and whoever has it open keeps it. */
function cardWords(device: string, state: ListedLease["state"]): string {
  if (state === "draining") {
    return (
      `${device} reaches no memory but its client's, if that, and is nobody else's until its client has closed it; ` +
      "it stays with vfio-pci"
    );
  }
  return `${device} is free for the next lease; it stays with vfio-pci`;
}

/** It could not be done, or the kernel takes its time. */
const UNDONE =
  "it is over, but not all that it was made of is taken away yet: the broker goes on trying, and its audit log says why";
