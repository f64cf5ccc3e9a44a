// RSS: the queue that the card's hash chooses, by its own key, table and fields; how devices without one choose.
import { complaint, type Complaint } from "../complaint.js";
import type { ExplainFacts } from "../facts.js";
import type { Packet } from "../packet/packet.js";
import { flowOf, hashInput, toeplitz, usualFields } from "../toeplitz.js";
import { queueWords, type Decide } from "./stage.js";

const TOEPLITZ = 1;
const FUNCTIONS: Readonly<Record<number, string>> = { 2: "xor", 4: "crc32" };
/** Neighbours of the packet's flow that are tried, to see whether the flows around it go elsewhere. */
const NEIGHBOURS = 64;

/** The third stage. */
export const rss: Decide = (facts, way) => {
  const said = (
    says: string,
    queues: readonly number[],
    complaints: Complaint[] = [],
  ): ReturnType<Decide> => ({
    stage: { name: "RSS", says, complaints },
    way: { ...way, queues },
  });
  if (way.steered) return said("not asked: a rule chose the queue", way.queues);
  const { card, example } = facts;
  const { link, driver } = card.facts;
  const all = Array.from({ length: card.queues }, (_, queue) => queue);
  if (all.length === 1) return said("the card has one queue", [0]);
  const table = card.facts.rss;
  if (table === null || table.indirection.length === 0) {
    if (link.kind === "veth") {
      const says = `veth has no RSS: the frame arrives on the queue of the number that its sender's end sent on (by a hash, or by processor): ${queueWords(all)}`;
      return said(says, all, spreads(facts, all));
    }
    return said(`${driver.driver} tells no RSS table: ${queueWords(all)}`, all, spreads(facts, all));
  }
  const inTable = [...new Set(table.indirection)].sort((a, b) => a - b);
  if (table.hashFunction !== TOEPLITZ || (table.inputTransform ?? 0) !== 0 || table.key === "") {
    const why =
      table.key === ""
        ? "the card does not tell its key"
        : table.hashFunction !== TOEPLITZ
          ? `its hash is ${FUNCTIONS[table.hashFunction] ?? "another"}, which is not computed here`
          : "it mixes source and destination before the hash, which is not computed here";
    return said(`${why}: ${queueWords(inTable)}`, inTable, spreads(facts, inTable));
  }
  const queueOf = hasher(facts);
  const { hash, queue } = queueOf(example.packet);
  const flow = flowOf(example.packet);
  if (hash === null) return said(`no hash of what is no IP: entry 0 of the table, queue ${queue}`, [queue]);
  const told =
    facts.hashFields === null ? ` (${driver.driver} does not tell what it hashes: the usual fields)` : "";
  const says = `Toeplitz hash 0x${hash.toString(16).padStart(8, "0")} over ${flow} fields${told}, entry ${hash % table.indirection.length} of ${table.indirection.length}: queue ${queue}`;
  const around = new Set(neighbours(example.packet).map((packet) => queueOf(packet).queue));
  around.add(queue);
  const reached = [...around].sort((a, b) => a - b);
  return said(says, [queue], reached.length > 1 ? spreads(facts, reached) : []);
};

/** The queue of a packet by key, table and fields of the card. */
function hasher({
  card,
  hashFields,
}: ExplainFacts): (packet: Packet) => { hash: number | null; queue: number } {
  const { key: hex, indirection } = card.facts.rss!;
  const key = Uint8Array.from(Buffer.from(hex, "hex"));
  return (packet) => {
    const flow = flowOf(packet);
    if (flow === null) return { hash: null, queue: indirection[0]! };
    const hash = toeplitz(key, hashInput(packet, hashFields ?? usualFields(flow)));
    return { hash, queue: indirection[hash % indirection.length]! };
  };
}

/** The same conversation begun from other ports: what a rule on the destination takes too. */
function neighbours(packet: Packet): Packet[] {
  const { sourcePort } = packet;
  if (sourcePort === null) return [];
  return Array.from({ length: NEIGHBOURS }, (_, n) => ({
    ...packet,
    sourcePort: (sourcePort + n + 1) & 0xffff,
  }));
}

/** A complaint where sockets serve some of the queues that a flow's packets may arrive on, and not all. */
function spreads({ card }: ExplainFacts, queues: readonly number[]): Complaint[] {
  const served = new Set((card.sockets ?? []).map((socket) => socket.queue));
  const without = queues.filter((queue) => !served.has(queue));
  if (served.size === 0 || without.length === 0) return [];
  const { name } = card.facts.link;
  const [first] = [...served];
  const says = `packets of one flow from different ports arrive on ${queueWords(queues)}, and no AF_XDP socket serves ${queueWords(without)}`;
  const mend =
    card.facts.ntuple === null
      ? `bind a socket to every queue, or: sudo ethtool -L ${name} combined 1`
      : `steer the flow: sudo ethtool -N ${name} flow-type ... action ${first}`;
  return [complaint("rss-spreads", says, mend)];
}
