// From two samples to the counts at each stage, and the first stage where packets vanish. Pure.
import type { XskFacts, XskRing } from "../../observe/kernel.js";
import { complaint, type Complaint } from "../complaint.js";
import { explainPacket, type Explanation } from "../explain.js";
import { leaseOf, type ExplainFacts } from "../facts.js";
import { holderWords, pending, socketComplaints } from "../stages/socket.js";
import { queueWords, type StageName } from "../stages/stage.js";
import type { Sample } from "./sample.js";

/** What was counted at a stage. */
export interface Counted {
  readonly name: StageName;
  /** Packets that came through; null where the stage counts nothing. */
  readonly packets: number | null;
  readonly says: string;
}

/** What was counted, and what that means. */
export interface LiveVerdict {
  readonly seconds: number;
  readonly counted: readonly Counted[];
  /** The first stage where packets vanish; null where they get to the end. */
  readonly vanish: { readonly stage: StageName; readonly complaint: Complaint } | null;
  readonly explanation: Explanation;
}

interface SocketDelta {
  readonly socket: XskFacts;
  /** Frames that the kernel put into its receive ring, and that its owner took out. */
  readonly placed: number;
  readonly read: number;
  readonly full: number;
  readonly dropped: number;
  readonly fillEmpty: number;
  readonly invalid: number;
  /** Frames that waited to be sent at both looks, none of which the kernel took meanwhile. */
  readonly unsent: number;
  /** Free frames that waited in the fill ring at both looks while the driver slept. */
  readonly unfilled: number;
}

const moved = (before: number, now: number): number => (now - before) >>> 0;
const ring = (socket: XskFacts | undefined, name: "rx" | "tx" | "fill"): XskRing =>
  socket?.[name] ?? { producer: 0, consumer: 0, needWakeup: false };

function deltas(before: readonly XskFacts[], after: readonly XskFacts[]): SocketDelta[] {
  return after.map((socket) => {
    const old = before.find((each) => each.inode === socket.inode);
    const [was, is] = [old?.statistics, socket.statistics];
    const grew = (key: keyof NonNullable<typeof is>): number => (is?.[key] ?? 0) - (was?.[key] ?? 0);
    const stuck = (name: "tx" | "fill"): number =>
      old !== undefined &&
      ring(old, name).consumer === ring(socket, name).consumer &&
      ring(socket, name).needWakeup
        ? Math.min(pending(ring(old, name)), pending(ring(socket, name)))
        : 0;
    return {
      socket,
      placed: moved(ring(old, "rx").producer, ring(socket, "rx").producer),
      read: moved(ring(old, "rx").consumer, ring(socket, "rx").consumer),
      full: grew("rxRingFull"),
      dropped: grew("rxDropped"),
      fillEmpty: grew("fillRingEmpty"),
      invalid: grew("rxInvalidDescriptors") + grew("txInvalidDescriptors"),
      unsent: stuck("tx"),
      unfilled: socket.zeroCopy === true ? stuck("fill") : 0,
    };
  });
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

/** Compares two samples. `facts` are those at the second. */
export function judge(facts: ExplainFacts, before: Sample, after: Sample, seconds: number): LiveVerdict {
  const explanation = explainPacket(facts);
  const arrived = after.counters.rxPackets - before.counters.rxPackets;
  const byQueue = [...after.queues]
    .map(([queue, count]) => [queue, count - (before.queues.get(queue) ?? 0)] as const)
    .filter(([, count]) => count > 0);
  const runs = after.runs === null || before.runs === null ? null : after.runs - before.runs;
  const sockets = deltas(before.sockets, after.sockets);
  // The flow of a lease with a port is copied to sockets there; on the card there are none for it.
  const ofPort = deltas(before.port?.sockets ?? [], after.port?.sockets ?? []);
  const all = [...sockets, ...ofPort];
  const placed = sum(all.map((each) => each.placed));
  const lost = sum(all.map((each) => each.full + each.dropped));
  const read = sum(all.map((each) => each.read));
  const stack = stackDelta(before, after);
  const counted: Counted[] = [
    {
      name: "link",
      packets: arrived,
      says: `${arrived} arrived; ${after.counters.rxMissed - before.counters.rxMissed} missed, ${after.counters.rxDropped - before.counters.rxDropped} dropped, ${after.counters.rxErrors - before.counters.rxErrors} bad`,
    },
    filtered(facts, before, after),
    {
      name: "RSS",
      packets: byQueue.length === 0 ? null : sum(byQueue.map(([, count]) => count)),
      says:
        byQueue.length === 0
          ? "the driver counts none by queue"
          : byQueue.map(([queue, count]) => `queue ${queue}: ${count}`).join(", "),
    },
    {
      name: "XDP",
      packets: runs,
      says:
        runs === null
          ? after.link.xdp === null
            ? "no program"
            : "its runs cannot be counted"
          : `the program ran ${runs} times`,
    },
    {
      name: "socket",
      packets: all.length === 0 ? null : placed,
      says:
        all.length === 0
          ? "no AF_XDP socket is seen"
          : `${placed} put into receive rings, ${lost} dropped there`,
    },
    leased(facts, before, after, { byQueue, sockets }),
    {
      name: "handler",
      packets: all.length === 0 ? null : read,
      says: all.length === 0 ? "none" : `${read} read`,
    },
    { name: "kernel", packets: stack.received, says: stack.says },
  ];
  const vanish = firstLoss(facts, explanation, {
    before,
    after,
    arrived,
    byQueue,
    runs,
    sockets,
    ofPort,
    placed,
    lost,
    kernel: stack.received,
  });
  return { seconds, counted, vanish, explanation };
}

/** What the card's own rules matched, where there are any and the driver counts it. */
function filtered({ card }: ExplainFacts, before: Sample, after: Sample): Counted {
  const name = "card filter";
  const { ntuple, features, driver } = card.facts;
  const none = (says: string): Counted => ({ name, packets: null, says });
  if (ntuple === null || ntuple.capacity === 0) return none("the card has no ntuple rules");
  if (features["rx-ntuple-filter"]?.active === false) return none("ntuple rules are switched off");
  if (ntuple.rules.length === 0) return none("no ntuple rule is set: all go on to RSS");
  const rules = ntuple.rules.length === 1 ? "the one ntuple rule" : `the ${ntuple.rules.length} ntuple rules`;
  if (before.matched === null || after.matched === null) {
    return none(`${driver.driver} does not count what ${rules} matched`);
  }
  const packets = after.matched - before.matched;
  return { name, packets, says: `${packets} matched by ${rules}` };
}

/** What came to whom the packet's queue or flow is lent: by its port, its own queues, or the kernel's lease of a queue. */
function leased(
  facts: ExplainFacts,
  before: Sample,
  after: Sample,
  { byQueue, sockets }: Pick<Seen, "byQueue" | "sockets">,
): Counted {
  const name = "lease";
  const lease = leaseOf(facts);
  const own = lease?.own ?? null;
  if (lease !== null && own !== null) {
    const packets = sum(
      sockets.filter(({ socket }) => own.queues.includes(socket.queue)).map(({ placed }) => placed),
    );
    return { name, packets, says: `${packets} to ${lease.id}, on ${queueWords(own.queues)} of its own` };
  }
  if (lease !== null) {
    if (before.port === null || after.port === null) {
      return { name, packets: null, says: `the port of ${lease.id} is not there: the lease has ended` };
    }
    const packets = after.port.counters.rxPackets - before.port.counters.rxPackets;
    const dropped = after.port.counters.rxDropped - before.port.counters.rxDropped;
    return {
      name,
      packets,
      says: `${packets} to the port ${after.port.ifname} of ${lease.id}, ${dropped} dropped there`,
    };
  }
  const lent = facts.card.facts.leases.queues;
  if (lent.length === 0) return { name, packets: null, says: "none" };
  const counts = byQueue.filter(([queue]) => lent.includes(queue)).map(([, count]) => count);
  return {
    name,
    packets: byQueue.length === 0 ? null : sum(counts),
    says: byQueue.length === 0 ? "the driver counts none by queue" : `${sum(counts)} on ${queueWords(lent)}`,
  };
}

function stackDelta(before: Sample, after: Sample): { received: number; says: string } {
  const grew = (name: string): number => (after.stack[name] ?? 0) - (before.stack[name] ?? 0);
  const received = grew("Ip.InReceives") + grew("Ip6.InReceives");
  const reasons: [string, number][] = [
    ["no listener", grew("Udp.NoPorts") + grew("Udp6.NoPorts")],
    ["socket buffer full", grew("Udp.RcvbufErrors") + grew("Udp6.RcvbufErrors")],
    ["bad checksum", grew("Udp.InCsumErrors") + grew("Tcp.InCsumErrors")],
    ["no route or wrong address", grew("Ip.InAddrErrors") + grew("Ip6.InAddrErrors") + grew("Ip.InNoRoutes")],
  ];
  const some = reasons.filter(([, count]) => count > 0).map(([why, count]) => `${why} ${count}`);
  return {
    received,
    says: `${received} in its IP stack (the whole namespace)${some.length === 0 ? "" : `; ${some.join(", ")}`}`,
  };
}

interface Seen {
  readonly before: Sample;
  readonly after: Sample;
  readonly arrived: number;
  readonly byQueue: readonly (readonly [number, number])[];
  readonly runs: number | null;
  readonly sockets: readonly SocketDelta[];
  /** Those on the port of the packet's lease. */
  readonly ofPort: readonly SocketDelta[];
  readonly placed: number;
  readonly lost: number;
  /** Packets that the kernel's IP stack got. */
  readonly kernel: number;
}

/** Complaints of the static side that name where packets vanish before a socket, by stage. */
function staticLoss(explanation: Explanation, names: readonly string[]): LiveVerdict["vanish"] {
  for (const stage of explanation.stages) {
    const found = stage.complaints.find((each) => names.includes(each.name));
    if (found !== undefined) return { stage: stage.name, complaint: found };
  }
  return null;
}

function firstLoss(facts: ExplainFacts, explanation: Explanation, seen: Seen): LiveVerdict["vanish"] {
  const { name } = facts.card.facts.link;
  const at = (
    stage: StageName,
    ...args: Parameters<typeof complaint>
  ): NonNullable<LiveVerdict["vanish"]> => ({
    stage,
    complaint: complaint(...args),
  });
  const missed = seen.after.counters.rxMissed - seen.before.counters.rxMissed;
  if (seen.arrived === 0) {
    return (
      staticLoss(explanation, ["link-down", "promiscuous-off", "rule-drops"]) ??
      at(
        "link",
        "nothing-arrives",
        `no packet at all arrived on ${name} while it was watched`,
        "see that the sender sends, and to this card's address: tcpdump at its end",
      )
    );
  }
  if (missed > 0 && missed >= seen.arrived) {
    const says = `the card had no room for ${missed} packets: its queues are not emptied in time`;
    return at("link", "no-room-in-card", says, `sudo ethtool -G ${name} rx 4096`);
  }
  return beforeSocket(explanation, seen) ?? inSocket(facts, seen) ?? atEnd(explanation);
}

/** A tenth of what arrived: less may well be other flows, such as ARP. */
const MANY = 10;

/** Packets do not come to the sockets: another queue, another's program, a rule of the card. */
function beforeSocket(explanation: Explanation, seen: Seen): LiveVerdict["vanish"] {
  const bound = new Set(seen.sockets.map((each) => each.socket.queue));
  const elsewhere = seen.byQueue.filter(([queue]) => !bound.has(queue));
  const outside = sum(elsewhere.map(([, count]) => count));
  const invalid = [...seen.sockets, ...seen.ofPort].map((each) => each.invalid);
  const none = seen.placed + seen.lost + sum(invalid) === 0;
  if (bound.size > 0 && outside * MANY >= seen.arrived && outside > 0) {
    const queues = queueWords(elsewhere.map(([queue]) => queue));
    const sockets = queueWords([...bound].sort((a, b) => a - b));
    const says = `${outside} of ${seen.arrived} packets arrived on ${queues}, and the sockets are on ${sockets}`;
    const mend = "bind a socket to every queue, or steer the flow to the socket's";
    const spread = staticLoss(explanation, ["rss-spreads"]) !== null && !none;
    if (none || spread) {
      return { stage: "RSS", complaint: complaint(spread ? "rss-spreads" : "wrong-queue", says, mend) };
    }
  }
  if (!none) return null;
  // What the kernel gets is not lost, whoever's program or rule let it pass.
  if (seen.kernel * 2 < seen.arrived) {
    const found = staticLoss(explanation, ["rules-left", "rule-shadowed", "foreign-program"]);
    if (found !== null) return found;
  }
  return bound.size > 0 ? staticLoss(explanation, ["wrong-queue"]) : null;
}

/** A socket is given frames, and they do not get out of it. */
function inSocket(facts: ExplainFacts, seen: Seen): LiveVerdict["vanish"] {
  for (const each of [...seen.sockets, ...seen.ofPort]) {
    const { socket } = each;
    const whose = `the socket of ${holderWords(socket)} on queue ${socket.queue}`;
    const found = (...args: Parameters<typeof complaint>): LiveVerdict["vanish"] => ({
      stage: "socket",
      complaint: complaint(...args),
    });
    const known = socketComplaints(facts, socket);
    const shared = known.find((one) => one.name === "umem-shared-wrongly");
    if (each.invalid > 0 || (shared !== undefined && each.dropped > 0)) {
      const says = `${each.invalid} addresses in the rings of ${whose} are none of its frame memory: somebody else writes there too`;
      return each.invalid > 0
        ? found("umem-shared-wrongly", says, "give each socket frames of its own, and each ring one producer")
        : { stage: "socket", complaint: shared! };
    }
    if (each.unfilled > 0) {
      const says = `${each.unfilled} free frames wait in the fill ring of ${whose}, and the driver sleeps until it is called`;
      return found(
        "need-wakeup-ignored",
        says,
        "call poll() or recvfrom() when the ring's flags have XDP_RING_NEED_WAKEUP",
      );
    }
    // A frame that no fill ring entry is there for counts as dropped, and the miss as a ring found empty.
    if (each.dropped > 0 && each.fillEmpty > 0) {
      const says = `${each.dropped} packets were dropped since the fill ring of ${whose} is empty; its owner read ${each.read} meanwhile, and ${pending(ring(socket, "rx"))} wait unread`;
      return found(
        "fill-ring-empty",
        says,
        "give frames back to the fill ring as they are used; a handler that keeps frames has to let them go",
      );
    }
    if (each.dropped > 0) {
      const says = `${each.dropped} packets were too long for a frame of ${whose}`;
      return found("too-long", says, "use frames of 4096 bytes, or bind with XDP_USE_SG");
    }
    if (each.full > 0) {
      const says = `${each.full} packets were dropped since the receive ring of ${whose} is full: its owner read ${each.read} meanwhile`;
      return found(
        "ring-full",
        says,
        "read it more often: a handler must not block; more queues share the work",
      );
    }
    if (each.placed > 0 && each.read === 0 && socket.rx !== null) {
      const says = `${whose} got ${each.placed} packets and its owner read none of them`;
      return {
        stage: "handler",
        complaint: complaint("handler-stalled", says, "see what keeps it: a handler must not block"),
      };
    }
    if (each.unsent > 0) {
      const says = `${each.unsent} frames wait in the transmit ring of ${whose}, and the kernel sleeps until it is called`;
      return found(
        "need-wakeup-ignored",
        says,
        "call sendto() when the ring's flags have XDP_RING_NEED_WAKEUP",
      );
    }
  }
  return null;
}

/** Nothing is lost on the way: the end itself may be none, and then whatever keeps a program off the card is why. */
function atEnd(explanation: Explanation): LiveVerdict["vanish"] {
  if (explanation.ends !== "kernel" || staticLoss(explanation, ["no-route", "no-listener"]) === null)
    return null;
  return staticLoss(explanation, ["mtu-too-large", "no-route", "no-listener"]);
}
