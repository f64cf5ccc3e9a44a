// A veth wire for a bench: a one-queue card in a namespace, a sender at the other end, both gone when the bench ends.
import { labDown, labUp, type LabCard } from "@bifurcate/lab";
import path from "node:path";
import { Child } from "./child.js";

/** Makes the wire, runs the bench on it, and removes it, also when the bench fails. */
export async function onWire<T>(name: string, work: (card: LabCard) => Promise<T>): Promise<T> {
  return onWires(name, 1, ([card]) => work(card!));
}

/** As onWire, with one wire or two. */
export async function onWires<T>(
  name: string,
  wires: 1 | 2,
  work: (cards: readonly LabCard[]) => Promise<T>,
): Promise<T> {
  const lab = await labUp({ name, queues: 1, clients: wires });
  try {
    return await work(lab.cards);
  } finally {
    await labDown(name);
  }
}

export interface Sending {
  readonly examples: string;
  readonly card: LabCard;
  readonly seconds: number;
  /** Frames a second; as fast as they go when left out. */
  readonly rate?: number;
}

/** Words of the command that sends 64-byte UDP frames to port 53 of the card by AF_XDP, from core 0. */
function senderWords({ examples, card, seconds, rate }: Sending): string[] {
  return [
    path.join(examples, "veth_bench"),
    ...["send", "--dev", card.peer.ifname, "--netns", card.peer.netns, "--core", "0"],
    ...["--seconds", String(seconds), "--to", card.mac, "--port", "53"],
    ...(rate === undefined ? [] : ["--rate", String(rate)]),
  ];
}

/** Starts a sender. */
export function sender(sending: Sending): Child {
  const [command, ...args] = senderWords(sending);
  return new Child(command!, args);
}

/** Sends while `work` runs; the sender is bounded by its own seconds and ended as soon as `work` is done. */
export async function whileSending<T>(sending: Sending, work: () => Promise<T>): Promise<T> {
  const child = sender(sending);
  try {
    return await work();
  } finally {
    await child.end();
  }
}
