// What is wrong with a card: link, MTU, programs, queues, what crashed splits have left on it.
import { programConflict } from "../steering/conflicts.js";
import { mtuRefusal } from "../steering/ladder.js";
import { driverNotes } from "../steering/drivers.js";
import type { Card } from "./card.js";
import { finding, type Finding } from "./finding.js";
import { quirkFindings } from "./quirks.js";

/** struct ethtool_rx_flow_spec: where the queue stands, and the part of it that is the queue (ETHTOOL_RX_FLOW_SPEC_RING). */
const RING_COOKIE = 152;
const RING = 0xffff_ffffn;
const DISCARD = 0xffff_ffff_ffff_ffffn;

/** The queue that a rule steers to; null for one that drops, or steers to a virtual function. */
export function queueOfRule(bytes: Uint8Array): number | null {
  const cookie = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getBigUint64(RING_COOKIE, true);
  return cookie === DISCARD || cookie >> 32n !== 0n ? null : Number(cookie & RING);
}

/** All findings about a card. */
export function cardFindings(card: Card): Finding[] {
  const { facts } = card;
  const { name } = facts.link;
  if (!facts.link.ethernet || facts.link.loopback) {
    const what = facts.link.loopback ? "it is the loopback interface" : "it carries no Ethernet frames";
    return [
      finding("not-ethernet", name, `${what}: flows cannot be told apart on it`, "use the card below it"),
    ];
  }
  return [...link(card), ...programs(card), ...left(card), ...queues(card), ...quirkFindings(card)];
}

function link({ facts }: Card): Finding[] {
  const { name, up, carrier, mtu } = facts.link;
  const found: Finding[] = [];
  if (!up) {
    found.push(finding("link-down", name, "it is administratively down", `sudo ip link set dev ${name} up`));
  } else if (!carrier) {
    const mend =
      facts.link.kind === "veth"
        ? "bring the other end up"
        : `plug the cable in; see ethtool ${name}, and the switch's port`;
    found.push(finding("no-carrier", name, "it is up and has no carrier: no frame can arrive", mend));
  }
  const limit = driverNotes(facts.driver.driver).maxMtu;
  const refusal = mtuRefusal(facts);
  if (refusal !== null && limit !== null) {
    const says = `${refusal}: a split falls back to a copy after the kernel's own (generic XDP)`;
    found.push(
      finding("mtu-too-large", name, says, `sudo ip link set dev ${name} mtu ${Math.min(mtu, limit)}`),
    );
  }
  if (facts.features["rx-lro"]?.active === true) {
    const says = "the card joins TCP segments (LRO), which drivers refuse beside an XDP program";
    found.push(finding("lro-on", name, says, `sudo ethtool -K ${name} lro off`));
  }
  return found;
}

function programs(card: Card): Finding[] {
  const { facts } = card;
  const { name } = facts.link;
  const found: Finding[] = [];
  // A program of a live split, or of a broker, is no finding; asking as a plan does names whose it is.
  const split = facts.otherSplits.some((each) =>
    facts.xdp?.owner?.holders.some((holder) => holder.pid === each.pid),
  );
  const ours = split || card.broker !== null;
  if (facts.xdp !== null && !ours) {
    const [words = ""] = programConflict(facts, "af_packet");
    const mend = `stop its owner, or: sudo ip link set dev ${name} xdp off`;
    found.push(finding("foreign-program", name, words, mend));
  }
  const features = facts.xdpFeatures?.features;
  if (features === undefined) {
    const says =
      "the kernel does not tell what XDP the driver can (that came with Linux 6.3): it is tried at each split";
    found.push(finding("no-xdp-features", name, says, "run Linux 6.3 or newer, which tells it"));
  } else if (!features.includes("basic") || !features.includes("redirect")) {
    const says = `${facts.driver.driver} has no XDP of its own: frames are taken after the kernel made packets of them`;
    const mend = "use a card whose driver has XDP: bifurcate devices says which";
    found.push(finding("no-xdp-in-driver", name, says, mend));
  }
  for (const [queue, pids] of sharedFillRings(card)) {
    const says =
      `${pids.length} processes (${pids.join(", ")}) have the fill ring of the AF_XDP socket on queue ${queue} mapped; ` +
      "it takes one producer, and two overwrite each other's frames";
    found.push(
      finding("umem-shared-wrongly", name, says, "let one process fill, and hand the others their frames"),
    );
  }
  return found;
}

/** Queues whose fill ring has more than one producer: mapped by several processes, or shared by sockets of several. */
export function sharedFillRings(card: Pick<Card, "sockets">): Map<number, number[]> {
  const fillers = new Map<string, { queue: number; pids: Set<number> }>();
  for (const socket of card.sockets ?? []) {
    const key = `${socket.queue} ${socket.umem?.id ?? `inode ${socket.inode}`}`;
    const entry = fillers.get(key) ?? { queue: socket.queue, pids: new Set<number>() };
    for (const holder of socket.holders) if (holder.fills) entry.pids.add(holder.pid);
    fillers.set(key, entry);
  }
  const shared = [...fillers.values()].filter((each) => each.pids.size > 1);
  return new Map(shared.map(({ queue, pids }) => [queue, [...pids].sort((a, b) => a - b)]));
}

function left({ facts, stale, sockets }: Card): Finding[] {
  const { name } = facts.link;
  const found = stale.map((split) =>
    finding(
      "split-left",
      name,
      `the split ${split.id} (${split.flows.join("; ")}) is dead and its settings are still on the card`,
      "sudo bifurcate release --stale",
    ),
  );
  if (sockets === null || facts.otherSplits.length > 0 || stale.length > 0) return found;
  const table = new Set(facts.rss?.indirection ?? []);
  const bound = new Set(sockets.map((socket) => socket.queue));
  const orphans = new Set<number>();
  for (const { location, bytes } of facts.ntuple?.rules ?? []) {
    const queue = queueOfRule(bytes);
    if (queue === null || table.has(queue) || bound.has(queue)) continue;
    orphans.add(queue);
    const says = `rule ${location} steers to queue ${queue}, which RSS leaves out and no AF_XDP socket serves: a crash left it`;
    found.push(finding("rule-left", name, says, `sudo ethtool -N ${name} delete ${location}`));
  }
  const queues = facts.channels === null ? 0 : facts.channels.now.combined + facts.channels.now.rx;
  const idle = Array.from({ length: queues }, (_, queue) => queue).filter(
    (queue) => table.size > 0 && !table.has(queue) && !bound.has(queue) && !orphans.has(queue),
  );
  if (idle.length > 0) {
    const says = `RSS leaves out queue ${idle.join(", ")}, which nobody uses`;
    found.push(finding("carve-out-left", name, says, `sudo ethtool -X ${name} default`));
  }
  return found;
}

function queues({ facts, queues: now }: Card): Finding[] {
  const { name } = facts.link;
  const found: Finding[] = [];
  const max = facts.channels === null ? now : facts.channels.max.combined + facts.channels.max.rx;
  if (now === 1) {
    const mend =
      max > 1
        ? `sudo ethtool -L ${name} combined ${Math.min(max, 4)}`
        : "give the card more queues where it is made";
    found.push(
      finding("one-queue", name, "it has one receive queue, which a split shares with the kernel", mend),
    );
  }
  const ntuple = facts.features["rx-ntuple-filter"];
  if (ntuple !== undefined && !ntuple.active && ntuple.available && !ntuple.fixed) {
    const says = "its ntuple rules are switched off: a split switches them on, or shares the kernel's queues";
    found.push(finding("ntuple-off", name, says, `sudo ethtool -K ${name} ntuple on`));
  }
  return found;
}
