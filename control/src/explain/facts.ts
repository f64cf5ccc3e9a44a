// What an explanation is made from: the card, its counters, the AF_XDP sockets on it, and the splits that live there.
import { readCard, type Card } from "../doctor/card.js";
import type { Files } from "../doctor/files.js";
import { errnoOf, wrapError } from "../errors.js";
import type { Kernel, Netns } from "../kernel.js";
import type { LeaseRecord } from "../lease/record.js";
import type { LinkCounters, RouteDecision } from "../observe/kernel.js";
import { stateDirectory } from "../transaction/journal.js";
import { listSplits, type SplitEntry } from "../transaction/registry.js";
import { compileAny } from "../steering/rules/compile.js";
import { matches } from "../steering/rules/interpret.js";
import { frameOf, packetOf } from "./packet/frame.js";
import type { Example, Packet } from "./packet/packet.js";
import { flowOf } from "./toeplitz.js";

/** XDP verdicts (enum xdp_action, include/uapi/linux/bpf.h). */
export const XDP = { aborted: 0, drop: 1, pass: 2, tx: 3, redirect: 4 } as const;

/** The facts behind one explanation. */
export interface ExplainFacts {
  readonly card: Card;
  readonly counters: LinkCounters;
  readonly example: Example;
  /** RXH_* bits for the packet's kind of flow; null where the driver does not tell, or there is no hash. */
  readonly hashFields: number | null;
  /** Live splits on the card. */
  readonly splits: readonly SplitEntry[];
  /** The verdict of the attached program by queue; null where it is not ours, or may not be run. */
  readonly verdicts: ReadonlyMap<number, number> | null;
  /** What routing does with the packet; why it is refused; null for what is no IP. */
  readonly route: RouteDecision | { readonly refused: string } | null;
}

/** The split whose program is on the card; where its holders may not be asked for, the one that goes through AF_XDP. */
export function ownSplit(facts: Pick<ExplainFacts, "card" | "splits">): SplitEntry | null {
  const { xdp } = facts.card.facts;
  if (xdp === null) return null;
  if (xdp.owner === null) return facts.splits.find((split) => split.path.backend === "af_xdp") ?? null;
  const { holders } = xdp.owner;
  return facts.splits.find((split) => holders.some((holder) => holder.pid === split.pid)) ?? null;
}

/** The broker's lease whose flow the packet is of; null where there is none, or that is not for this user to see. */
export function leaseOf({ card, example }: Pick<ExplainFacts, "card" | "example">): LeaseRecord | null {
  const found = card.broker?.leases?.find(({ request }) =>
    matches(compileAny(request.flows).program, example.frame),
  );
  return found ?? null;
}

/** What the packet is: a line, or a frame out of a file. */
export type Asked = { readonly packet: Packet } | { readonly frame: Uint8Array };

/**
 * Reads the facts. Errors: those of readFacts.
 * @param directory Where journals are; BIFURCATE_STATE_DIR or /run/bifurcate when left out.
 */
export function readExplainFacts(
  kernel: Kernel,
  netns: Netns,
  files: Files,
  ifname: string,
  asked: Asked,
  directory = stateDirectory(),
): ExplainFacts {
  const card = readCard(kernel, netns, files, ifname, directory);
  const { link } = card.facts;
  const example: Example =
    "frame" in asked
      ? { packet: packetOf(asked.frame), frame: asked.frame }
      : { packet: asked.packet, frame: frameOf(asked.packet, link.mac) };
  const splits = listSplits(directory).splits.filter(
    (each) => each.state === "live" && each.netnsInode === netns.inode && each.ifindex === link.index,
  );
  const flow = flowOf(example.packet);
  const read = <T>(what: string, from: () => T): T => {
    try {
      return from();
    } catch (thrown) {
      throw wrapError(thrown, `read ${what} of ${ifname}`);
    }
  };
  const own = ownSplit({ card, splits }) !== null;
  return {
    card,
    example,
    splits,
    counters: read("the counters", () => netns.linkCounters(link.index)),
    hashFields: flow === null ? null : read("the hash's fields", () => netns.hashFields(ifname, flow)),
    verdicts: own ? verdictsOf(netns, card, example.frame) : null,
    route: routeOf(netns, link.index, example.packet),
  };
}

/** What our program makes of the frame on each queue; null where it may not be run (CAP_SYS_ADMIN), or a queue is not. */
function verdictsOf(netns: Netns, { facts, queues }: Card, frame: Uint8Array): Map<number, number> | null {
  const verdicts = new Map<number, number>();
  try {
    for (let queue = 0; queue < queues; queue++) {
      const { verdict } = netns.runXdp(facts.xdp!.programId, frame, facts.link.index, queue);
      verdicts.set(queue, verdict);
    }
    return verdicts;
  } catch {
    return null;
  }
}

/** Why routing refuses a packet, by errno. */
const REFUSALS: Readonly<Record<string, string>> = {
  EHOSTUNREACH: "there is no route to it, or this machine does not forward",
  ENETUNREACH: "there is no route to it",
  EINVAL:
    "an address cannot come from there (a martian), or its source does not lead back to this card (rp_filter)",
  EXDEV: "its source does not lead back to this card (rp_filter)",
  EACCES: "a route prohibits it",
};

function routeOf(netns: Netns, ifindex: number, packet: Packet): ExplainFacts["route"] {
  if (packet.version === null) return null;
  try {
    return netns.routeDecision(ifindex, packet.source, packet.destination);
  } catch (thrown) {
    const errno = errnoOf(thrown);
    const known = errno === null ? undefined : REFUSALS[errno];
    if (known === undefined) throw wrapError(thrown, `ask how ${packet.destination} is routed`);
    return { refused: `${known} (${errno})` };
  }
}
