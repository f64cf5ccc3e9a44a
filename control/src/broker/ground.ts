// What a lease is to stand on: queues of the card that are its own, or a port. Pure: facts in, a choice out.
import { BifurcateError } from "../errors.js";
import type { Facts } from "../facts/facts.js";
import type { OwnQueues, TableBefore } from "../lease/record.js";
import type { LeaseRequest } from "../protocol/messages.js";
import { carveOut, restoreTable } from "../steering/carveout.js";
import { compileFlow } from "../steering/compile-flow.js";
import { chooseWay, zeroCopyRefusal } from "../steering/ladder.js";
import { makePlan, queuesOf } from "../steering/make-plan.js";
import type { Mode, Plan, Step, ZeroCopy } from "../steering/plan.js";
import { leaseWords, type Rule } from "./policy.js";

/** What is known when a lease is asked for. */
export interface Asked {
  readonly facts: Facts;
  readonly request: LeaseRequest;
  readonly rule: Pick<Rule, "name" | "mechanisms" | "ownQueues" | "rate">;
  /** How the program on the card is attached; null where there is none yet. */
  readonly mode: Mode | null;
  /** Queues of the card that leases have already. */
  readonly taken: readonly number[];
  /** Those of them that were taken out of the table. */
  readonly carved: readonly number[];
  /** The card's table before the first of those was taken out of it. */
  readonly before: TableBefore | null;
}

/** What was chosen. */
export interface Ground {
  readonly plan: Plan;
  /** null: a port. */
  readonly own: OwnQueues | null;
  readonly zeroCopy: ZeroCopy;
  /** Steps down that the client is told of. */
  readonly notes: readonly string[];
}

/** A way that is closed, and why. */
class Closed extends Error {}

/** How the program on the card runs, or is going to where there is none yet; null: in no way. */
export function modeOn({ facts, request, mode }: Pick<Asked, "facts" | "request" | "mode">): Mode | null {
  const { device: ifname, flows } = request;
  return chooseWay(facts, { ifname, flows, backend: "af_xdp", mode: mode ?? "auto" }).way?.mode ?? null;
}

/**
 * Own queues where the policy gives them, the card has them and the kernel can hold the lease to its rights there; a
 * port otherwise, unless a queue was insisted on.
 * @throws E_LEASE_UNSUPPORTED, E_NO_ZERO_COPY, E_KERNEL_TOO_OLD, and those of a plan.
 */
export function chooseGround(asked: Asked): Ground {
  const ground = choose(asked);
  checkTcx(asked, ground.own !== null);
  return ground;
}

function choose(asked: Asked): Ground {
  if (asked.request.mechanism === "foreign") return onForeignPort(asked);
  const { request, rule } = asked;
  const allowed = (mechanism: "queue" | "port"): boolean =>
    rule.mechanisms.includes(mechanism) && (request.mechanism === "auto" || request.mechanism === mechanism);
  const what = leaseWords(request);
  let closed = "a port was asked for";
  if (allowed("queue")) {
    try {
      return onQueues(asked);
    } catch (thrown) {
      if (!(thrown instanceof Closed)) throw thrown;
      closed = thrown.message;
    }
    if (!allowed("port")) {
      throw new BifurcateError("E_LEASE_UNSUPPORTED", {
        what,
        why: `no queue of its own: ${closed}`,
        next: "Ask for the mechanism 'port', where the policy gives it.",
      });
    }
  } else if (!rule.mechanisms.includes("queue")) closed = `[${rule.name}] gives no queue`;
  if (request.zeroCopy === "require") {
    const why = `a lease port is veth, which copies; no queue of its own: ${closed}`;
    throw new BifurcateError("E_NO_ZERO_COPY", { what, why });
  }
  const notes = request.mechanism === "auto" ? [`no queue of its own: ${closed}`] : [];
  return { plan: sharedPlan(asked, what), own: null, zeroCopy: "off", notes };
}

/** A port whose client makes its sockets itself. What it then sets, it sets itself. */
function onForeignPort(asked: Asked): Ground {
  const { request } = asked;
  const what = leaseWords(request);
  if (request.zeroCopy === "require") {
    throw new BifurcateError("E_NO_ZERO_COPY", { what, why: "a lease port is veth, which copies" });
  }
  const why = request.pass
    ? "an outsider has no way back into the kernel: pass"
    : request.queues > 1
      ? "an outsider's port has one queue"
      : null;
  if (why !== null) {
    const next = "Ask for one queue without pass, or use a client of the broker's own protocol.";
    throw new BifurcateError("E_LEASE_UNSUPPORTED", { what, why, next });
  }
  return { plan: sharedPlan(asked, what), own: null, zeroCopy: "off", notes: [] };
}

/** @throws E_KERNEL_TOO_OLD where what is sent or passed would stand on tcx and there is none. */
function checkTcx({ facts, request }: Asked, own: boolean): void {
  if (facts.ingress?.tcx !== false || (own && !request.pass)) return;
  throw new BifurcateError("E_KERNEL_TOO_OLD", {
    what: `lease '${request.flows.join("', '")}' on ${request.device}`,
    why: `the running kernel lacks tcx, on which ${own ? "return ports" : "lease ports"} stand, and which Linux has since 6.6`,
    next: "Use Linux 6.6 or newer, or a split in process, which needs no tcx.",
    data: { facility: "tcx", since: "6.6" },
  });
}

/** Why the kernel could not hold a lease with a queue of its own to its rights; null where it can. */
function unheld({ request, rule }: Asked): string | null {
  if (request.transmit === "own") {
    return "what a socket on the card itself sends passes no program, so 'own' cannot be checked; 'none' and 'raw' need no check";
  }
  if (request.transmit === "raw" && rule.rate !== null)
    return `the rate of [${rule.name}] is held by a port only`;
  return null;
}

function onQueues(asked: Asked): Ground {
  const why = unheld(asked);
  if (why !== null) throw new Closed(why);
  return asked.rule.ownQueues.length > 0 ? onNamedQueues(asked) : onCarvedQueues(asked);
}

/** Queues that root has set aside: nothing of the card is changed, and nothing steers but what root has set up. */
function onNamedQueues(asked: Asked): Ground {
  const { facts, request, rule, taken } = asked;
  const count = queuesOf(facts);
  const there = rule.ownQueues.filter((queue) => queue < count);
  const free = there.filter((queue) => !taken.includes(queue) && !facts.leases.queues.includes(queue));
  if (free.length < request.queues) {
    const named = `[${rule.name}] names ${rule.ownQueues.join(", ")}, of which the card has ${there.length}`;
    throw new Closed(`${named} and ${free.length} are free: too few for ${request.queues}`);
  }
  const queues = free.slice(0, request.queues);
  const plan = sharedPlan(asked, `lease '${request.flows.join("', '")}' on ${request.device}`);
  const notes = [
    `only what arrives on queue ${queues.join(", ")} of ${request.device} comes here, as root steers it`,
  ];
  // Where the card spreads the kernel's traffic over the queue too, zero-copy would show it to the client.
  const spread = facts.rss === null ? null : queues.find((queue) => facts.rss?.indirection.includes(queue));
  const copies =
    zeroCopyRefusal(facts, { backend: "af_xdp", mode: plan.path.mode }, "own-queue") ??
    (spread === null
      ? "the card has no RSS table, so that other traffic may arrive on the queue"
      : spread === undefined
        ? null
        : `queue ${spread} is in the card's RSS table, so that other traffic arrives on it`);
  const zeroCopy = copies === null ? request.zeroCopy : "off";
  if (copies !== null && request.zeroCopy === "require") throw new Closed(`no zero-copy: ${copies}`);
  if (copies !== null && request.zeroCopy === "prefer") notes.push(`every frame is copied once: ${copies}`);
  return { plan, own: { queues, before: null, steps: [], states: [] }, zeroCopy, notes };
}

/** Queues that are taken out of the RSS table, with ntuple rules that steer the flow to them. */
function onCarvedQueues(asked: Asked): Ground {
  const { facts, request, mode, taken, carved } = asked;
  const now = facts.rss?.indirection ?? [];
  const queues = queuesOf(facts);
  const before = asked.before ?? { table: now, queues, restore: restoreTable(now, queues) };
  const seen: Facts = {
    ...facts,
    rss: facts.rss === null ? null : { ...facts.rss, indirection: before.table },
    leases: { ...facts.leases, queues: [...facts.leases.queues, ...taken] },
  };
  const { ifname, flows } = { ifname: request.device, flows: request.flows };
  const plan = makePlan(
    seen,
    {
      ifname,
      flows,
      queues: request.queues,
      backend: "af_xdp",
      zeroCopy: request.zeroCopy === "require" ? "prefer" : request.zeroCopy,
      mode: mode ?? "auto",
    },
    compileFlow,
  );
  const { kind, zeroCopy } = plan.path;
  if (kind !== "own-queue") {
    const note = plan.notes.find((each) => each.startsWith("no own queue: "));
    throw new Closed(note?.replace("no own queue: ", "") ?? "the whole card was asked for");
  }
  if (plan.path.queues.length < request.queues) {
    throw new Closed(`the card has ${plan.path.queues.length} queues left to lease, not ${request.queues}`);
  }
  const channels = plan.steps.find((step) => step.apply.kind === "channels");
  if (channels !== undefined) {
    throw new Closed(`${queues} queues are too few; have root give the card more with \`ethtool -L\``);
  }
  if (request.zeroCopy === "require" && zeroCopy === "off")
    throw new Closed("the card has no zero-copy here");
  const table = carveOut(before.table, before.queues, [...carved, ...plan.path.queues]);
  if (table === null) throw new Closed("the RSS table has no other queue to give the kernel");
  const steps = plan.steps.filter((step) => step.apply.kind !== "rss");
  const own = { queues: plan.path.queues, before, steps, states: steps.map(() => "pending" as const) };
  const wanted = request.zeroCopy === "require" ? "require" : zeroCopy;
  const notes = plan.warnings.filter((each) => each.startsWith("every frame is copied"));
  return { plan, own, zeroCopy: wanted, notes };
}

/** Plans as a split of shared queues would, so that the same things are refused, and tells the card's mode. */
function sharedPlan({ facts, request, mode }: Asked, what: string): Plan {
  const plan = makePlan(
    facts,
    {
      ifname: request.device,
      flows: request.flows,
      backend: "af_xdp",
      zeroCopy: "off",
      steering: "shared",
      mode: mode ?? "auto",
    },
    compileFlow,
  );
  const step: Step | undefined = plan.steps[0];
  if (step === undefined) return plan;
  throw new BifurcateError("E_LEASE_UNSUPPORTED", {
    what,
    why: `a setting of the card has to be changed first, and a broker changes none for a port: ${step.words}`,
    next: "Have root make the change with ethtool before the broker is started.",
  });
}
