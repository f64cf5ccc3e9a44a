// From facts and a request to a plan. Pure: reads nothing, changes nothing.
import { BifurcateError, type ErrorCode } from "../errors.js";
import type { Facts } from "../facts/facts.js";
import type { Channels } from "../kernel.js";
import { listenerWarnings, programConflict, sessionConflict, splitConflict } from "./conflicts.js";
import { driverNotes } from "./drivers.js";
import type { CompileFlow, Flow } from "./flow.js";
import {
  chooseWay,
  FRAME_MTU,
  leaseRefusal,
  mtuRefusal,
  ownQueueRefusal,
  zeroCopyRefusal,
  type Way,
} from "./ladder.js";
import { planMetadata } from "./metadata.js";
import type { Outage, Path, Plan, Rung, SplitRequest, Step, ZeroCopy } from "./plan.js";
import { carveOutSteps, featureSteps, ingressSteps, leaseStep, ownQueueChoice, ruleSteps } from "./steps.js";

/** Number of receive queues that the channels give. */
export function receiveQueues(channels: Channels): number {
  return channels.combined + channels.rx;
}

/** Number of transmit queues that the channels give. */
export function transmitQueues(channels: Channels): number {
  return channels.combined + channels.tx;
}

/** Number of receive queues of the card as it is. */
export function queuesOf(facts: Facts): number {
  return facts.channels === null ? facts.link.rxQueues : Math.max(1, receiveQueues(facts.channels.now));
}

/**
 * Makes the plan. Errors: E_NO_FLOW, E_BAD_OPTION, E_NOT_ETHERNET, E_INTERFACE_DOWN, E_NO_SUCH_QUEUE,
 * E_NO_XDP, E_NO_ZERO_COPY, E_NO_LEASE, E_FEATURE_FIXED, E_FLOW_TAKEN, E_FOREIGN_XDP, E_OWN_SESSION, and what `compile`
 * throws.
 */
export function makePlan(facts: Facts, request: SplitRequest, compile: CompileFlow): Plan {
  const flows = checkRequest(facts, request, compile);
  const { way, rungs } = chooseWay(facts, request);
  if (way === null) {
    throw new BifurcateError(noWayCode(facts, request, rungs), {
      what: `split ${facts.link.name}`,
      why: rungs.map((rung) => `${rung.name}: ${rung.why}`).join("; "),
      data: { ladder: rungs },
    });
  }
  splitConflict(facts, flows, compile);
  const warnings = [
    ...sessionConflict(facts, request, flows),
    ...programConflict(facts, way.backend),
    ...listenerWarnings(facts, flows),
    ...rungs.filter((rung, i) => !rung.taken && i < rungs.findIndex((each) => each.taken)).map(stepDown),
  ];
  const notes: string[] = [];
  const steps: Step[] = [];
  const device = { ifindex: facts.link.index, name: facts.link.name };
  const features = featureSteps(facts, flows, way, device);
  warnings.push(...features.warnings);
  steps.push(...features.steps, ...ingressSteps(facts, way, device));

  const whole = flows.some((flow) => flow.all);
  let kind: Path["kind"] = whole ? "whole-card" : "shared-queues";
  let queues = sharedQueues(facts, request, way, warnings);
  let rules: readonly number[] = [];
  let lease: string | null = null;
  if (way.backend === "af_xdp" && !whole) {
    const choice = ownQueueChoice(facts, request);
    const why = ownQueueRefusal(facts, request, flows, choice.queues);
    if (why === null) {
      const carved = carveOutSteps(facts, choice, device);
      if (carved !== null) {
        kind = "own-queue";
        queues = choice.own;
        steps.push(...carved);
        if (request.steering === "lease") {
          const lent = leaseStep(facts, choice.own, device);
          steps.push(lent.step);
          lease = lent.name;
        }
        const made = ruleSteps(facts, flows, choice.own, device);
        steps.push(...made.steps);
        rules = made.locations;
      } else {
        notes.push("no own queue: the RSS table has no other queue to give the kernel");
      }
    } else {
      notes.push(`no own queue: ${why}`);
    }
  }

  if (request.steering === "lease") checkLease(facts, request, way, kind, notes);
  const zeroCopy =
    lease === null ? chooseZeroCopy(facts, request, way, kind, warnings, rungs) : ("require" as const);
  return {
    version: 1,
    device: {
      ...device,
      mac: facts.link.mac,
      driver: facts.driver.driver,
      bus: facts.driver.bus,
      mtu: facts.link.mtu,
      carrier: facts.link.carrier,
      netnsInode: facts.netns.inode,
    },
    flows: request.flows,
    path: {
      kind,
      backend: way.backend,
      mode: way.mode,
      queues,
      zeroCopy,
      steering: way.backend === "af_packet" ? "packet-socket" : kind === "own-queue" ? "ntuple" : "xdp",
      lease,
      rules,
      multiBuffer: way.backend === "af_xdp" && multiBuffer(facts, way),
      fragments: way.backend === "af_xdp" && multiBuffer(facts, way) && takesFragments(facts, way),
      ...planMetadata(facts, way, request),
    },
    ladder: rungs,
    steps,
    outages: outagesOf(facts, way, steps),
    bypasses: bypassesOf(way, request),
    warnings,
    notes,
    tap: request.tap ?? false,
    confirmSeconds: request.confirmSeconds ?? null,
    guardian: steps.length > 0 || (request.confirmSeconds ?? null) !== null,
  };
}

function checkRequest(facts: Facts, request: SplitRequest, compile: CompileFlow): readonly Flow[] {
  const what = `split ${facts.link.name}`;
  // A program in JavaScript may have named none at all.
  const named = request.flows as readonly string[] | undefined;
  if (named === undefined || named.length === 0)
    throw new BifurcateError("E_NO_FLOW", { what, why: "no flow was named" });
  const flows = request.flows.map(compile);
  if (!facts.link.ethernet || facts.link.loopback) {
    const why = facts.link.loopback ? "it is the loopback interface" : "it carries no Ethernet frames";
    throw new BifurcateError("E_NOT_ETHERNET", { what, why });
  }
  if (!facts.link.up) {
    throw new BifurcateError("E_INTERFACE_DOWN", {
      what,
      why: "it is administratively down",
      next: `Bring it up with \`ip link set dev ${facts.link.name} up\`.`,
    });
  }
  const { queues } = request;
  if (typeof queues === "number" && (!Number.isInteger(queues) || queues < 1)) {
    throw new BifurcateError("E_BAD_OPTION", {
      what,
      why: `the number of queues ${queues} is not 1 or more`,
    });
  }
  const count = queuesOf(facts);
  if (typeof queues === "number" && queues > count) {
    throw new BifurcateError("E_NO_SUCH_QUEUE", { what, why: `it has ${count} queues, not ${queues}` });
  }
  if (typeof queues === "object") {
    if (queues.length === 0)
      throw new BifurcateError("E_BAD_OPTION", { what, why: "the list of queues is empty" });
    if (new Set(queues).size !== queues.length) {
      throw new BifurcateError("E_BAD_OPTION", {
        what,
        why: `a queue is listed twice: ${queues.join(", ")}`,
      });
    }
    const wrong = queues.find((queue) => !Number.isInteger(queue) || queue < 0 || queue >= count);
    if (wrong !== undefined) {
      throw new BifurcateError("E_NO_SUCH_QUEUE", {
        what,
        why: `there is no queue ${wrong}: it has ${count}, numbered 0 to ${count - 1}`,
        data: { queue: wrong, queues: count },
      });
    }
  }
  return flows;
}

/**
 * E_NO_LEASE where a lease was asked for and the plan has none, or none that works: what is sent in copy mode into a
 * netkit device without a peer is dropped (drivers/net/netkit.c netkit_xmit()), so a lease is zero-copy or nothing.
 */
function checkLease(
  facts: Facts,
  request: SplitRequest,
  way: Way,
  kind: Path["kind"],
  notes: readonly string[],
): void {
  const what = `split ${facts.link.name} on a queue lease`;
  if (request.zeroCopy === "off") {
    const why = "a leased queue sends without a copy or not at all, and a copy was asked for";
    throw new BifurcateError("E_BAD_OPTION", { what, why });
  }
  const copies = zeroCopyRefusal(facts, way, "own-queue");
  const own = kind === "own-queue" ? copies : (copies ?? notes.at(-1) ?? "it has no own queue to lease");
  const whole = kind === "whole-card" ? "the whole card was asked for, and a lease is of an own queue" : null;
  const why = leaseRefusal(facts) ?? whole ?? own;
  if (why !== null) throw new BifurcateError("E_NO_LEASE", { what, why });
}

/** Which error it is when no way is open. */
function noWayCode(facts: Facts, request: SplitRequest, rungs: readonly Rung[]): ErrorCode {
  if (request.backend === "af_packet") return "E_DEVICE_FAILED";
  if (request.avoid?.some((each) => each.code === "E_KERNEL_TOO_OLD") === true) return "E_KERNEL_TOO_OLD";
  return rungs.length === 1 && rungs[0]?.why === mtuRefusal(facts) ? "E_MTU" : "E_NO_XDP";
}

function stepDown(rung: Rung): string {
  return `not ${rung.name}: ${rung.why}`;
}

/** The queues of a path on shared queues: all, because a frame reaches only a socket of its own queue. */
function sharedQueues(facts: Facts, request: SplitRequest, way: Way, warnings: string[]): readonly number[] {
  const all = Array.from({ length: queuesOf(facts) }, (_, i) => i);
  if (way.backend === "af_packet") {
    const members = typeof request.queues === "number" ? request.queues : (request.queues?.length ?? 1);
    return Array.from({ length: members }, (_, i) => i);
  }
  if (typeof request.queues !== "object") return all;
  const rest = all.filter((queue) => !(request.queues as readonly number[]).includes(queue));
  if (rest.length > 0) {
    warnings.push(`frames that arrive on the queues ${rest.join(", ")} stay with the kernel (--queues)`);
  }
  return request.queues;
}

function chooseZeroCopy(
  facts: Facts,
  request: SplitRequest,
  way: Way,
  kind: Path["kind"],
  warnings: string[],
  rungs: readonly Rung[],
): ZeroCopy {
  const wanted = request.zeroCopy ?? "prefer";
  if (wanted === "off") return "off";
  const why = zeroCopyRefusal(facts, way, kind);
  if (why === null) return wanted;
  if (wanted === "require") {
    // Where a better way was closed, that is the reason: a copy is only what came of it.
    const closed = rungs.filter((rung, i) => !rung.taken && i < rungs.findIndex((each) => each.taken));
    throw new BifurcateError("E_NO_ZERO_COPY", {
      what: `split ${facts.link.name} without a copy`,
      why: [...closed.map((rung) => `no ${rung.name}: ${rung.why}`), why].join("; "),
      data: { ladder: rungs },
    });
  }
  warnings.push(`every frame is copied once, without zero-copy: ${why}`);
  return "off";
}

/**
 * Whether a packet may be longer than one frame of the pool. A copy is cut into frames by the kernel, whatever the
 * driver received it into; without a copy the MTU has been looked at before.
 */
function multiBuffer(facts: Facts, way: Way): boolean {
  // Generic XDP sees what the kernel's receive offload joined, and what virtual senders left unsegmented.
  return way.mode === "generic" || facts.link.mtu > FRAME_MTU;
}

/** Whether a frame may come to the program in several buffers. */
function takesFragments(facts: Facts, way: Way): boolean {
  return way.mode === "generic" || facts.xdpFeatures?.features.includes("rx-sg") === true;
}

function outagesOf(facts: Facts, way: Way, steps: readonly Step[]): Outage[] {
  const notes = driverNotes(facts.driver.driver);
  const outages: Outage[] = [];
  if (way.mode === "driver" && notes.expect !== null) {
    outages.push({ what: notes.expect, seconds: notes.bounces ? 3 : null });
  }
  if (steps.some((step) => step.apply.kind === "channels")) {
    outages.push({ what: "changing the number of queues resets most drivers' queues", seconds: 1 });
  }
  if (steps.some((step) => step.apply.kind === "feature" && step.apply.feature === "rx-vlan-hw-parse")) {
    outages.push({ what: "switching VLAN stripping resets some drivers (igb among them)", seconds: 1 });
  }
  return outages;
}

/** Whose view of the flow ends while the split lives. */
function bypassesOf(way: Way, request: SplitRequest): string[] {
  const tcpdump =
    way.backend === "af_xdp" && request.tap !== true ? ["tcpdump and other captures (--tap shows it)"] : [];
  return [
    "nftables and iptables",
    "connection tracking and NAT",
    ...(way.backend === "af_xdp" ? ["tc ingress, traffic shaping and bridging"] : []),
    ...tcpdump,
    "per-socket and per-cgroup accounting",
  ];
}
