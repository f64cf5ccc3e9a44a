// The explanation: a packet's way through all stages, from facts alone.
import type { Complaint } from "./complaint.js";
import type { ExplainFacts } from "./facts.js";
import { cardFilter } from "./stages/card-filter.js";
import { handler } from "./stages/handler.js";
import { kernelPath } from "./stages/kernel-path.js";
import { lease } from "./stages/lease.js";
import { link } from "./stages/link.js";
import { rss } from "./stages/rss.js";
import { socket } from "./stages/socket.js";
import { queueWords, type Decide, type Stage, type Way } from "./stages/stage.js";
import { xdp } from "./stages/xdp.js";

/** A packet's way. */
export interface Explanation {
  readonly packet: string;
  readonly device: string;
  readonly stages: readonly Stage[];
  /** Where it ends: "user", "kernel", "nobody", or "unsure" where queues differ or a foreign program decides. */
  readonly ends: Way["to"];
  /** The queues it may arrive on. */
  readonly queues: readonly number[];
  /** That in one sentence. */
  readonly says: string;
  readonly complaints: readonly Complaint[];
}

const WAY: readonly Decide[] = [link, cardFilter, rss, xdp, socket, lease, handler, kernelPath];

/** Follows a packet through every stage. */
export function explainPacket(facts: ExplainFacts): Explanation {
  const all = Array.from({ length: facts.card.queues }, (_, queue) => queue);
  let way: Way = { queues: all, steered: false, to: "card" };
  const stages: Stage[] = [];
  for (const decide of WAY) {
    const { stage, way: next } = decide(facts, way);
    stages.push(stage);
    way = next;
  }
  const where = queueWords(way.queues);
  const says = {
    card: "it ends in the card",
    user: `it ends in user space, from ${where}`,
    kernel: "it ends with the kernel",
    nobody: "it gets nowhere",
    unsure: `it ends in user space or with the kernel: that differs among ${where}, or another's program decides`,
  }[way.to];
  return {
    packet: facts.example.packet.text,
    device: facts.card.facts.link.name,
    stages,
    ends: way.to,
    queues: way.queues,
    says,
    complaints: stages.flatMap((stage) => stage.complaints),
  };
}
