// What to do when the card changes under a running split. Pure: looks at what was seen, decides.
import type { ErrorCode } from "../errors.js";
import type { Plan } from "../steering/plan.js";
import { driverNotes } from "../steering/drivers.js";
import type { Observation } from "./observe.js";

/** With this MTU a frame with its headers and two VLAN tags, and AF_XDP's room before it, fits 2 KiB. */
const FRAME_MTU = 1_700;

/** One thing to repair; the owner of the sockets does it. */
export type Repair =
  /** The program is gone: attach it again. */
  | { readonly kind: "attach" }
  /** Open (again) the sockets of these queues and put them into the map. */
  | { readonly kind: "open-queues"; readonly queues: readonly number[] }
  /** These queues no longer exist: close their sockets. */
  | { readonly kind: "close-queues"; readonly queues: readonly number[] }
  /** Settings that were lost, by their place in the plan's steps: apply them again. */
  | { readonly kind: "steps"; readonly steps: readonly number[] };

/** What to do. */
export type Decision =
  | { readonly do: "nothing" }
  /** Nothing can be done now and nothing has to be: the kernel has its frames; look again later. */
  | { readonly do: "wait"; readonly why: string }
  | { readonly do: "repair"; readonly repairs: readonly Repair[]; readonly why: string }
  /** The path cannot go on as it is: end it and plan anew (the flow is with the kernel meanwhile). */
  | { readonly do: "replan"; readonly why: string }
  | { readonly do: "stop"; readonly code: ErrorCode; readonly why: string };

/** What the owner remembers between two looks. */
export interface WatchMemory {
  /** The queues that have sockets now; the plan's at first. */
  readonly queues: readonly number[];
  /** Steps that were repaired before: whoever changes one again means it, and is not fought. */
  readonly repaired: readonly number[];
}

/** `before` is the observation that the split was last right at. */
export function decide(
  plan: Plan,
  before: Observation,
  now: Observation,
  memory: WatchMemory = { queues: plan.path.queues, repaired: [] },
): Decision {
  const { link } = now;
  const name = plan.device.name;
  if (link === null) {
    return { do: "stop", code: "E_INTERFACE_GONE", why: `${name} was deleted or moved to another namespace` };
  }
  if (!link.up) return { do: "wait", why: `${link.name} is down; the split goes on when it is up` };
  // Only a change counts: what the plan was made with it already had an answer to.
  const limit = mtuLimit(plan);
  if (link.mtu !== before.link?.mtu && link.mtu > limit.mtu) {
    return {
      do: "replan",
      why: `the MTU of ${link.name} is now ${link.mtu}, and ${limit.whose} up to ${limit.mtu}`,
    };
  }
  const again = memory.repaired.filter((i) => isLost(plan, now, i));
  if (again.length > 0) {
    const words = again.map((i) => plan.steps[i]?.words ?? "").join(", ");
    return {
      do: "stop",
      code: "E_CHANGED_UNDERNEATH",
      why: `somebody undid it again on ${link.name}: ${words}`,
    };
  }
  const lease = plan.steps.findIndex((step, i) => step.apply.kind === "lease" && isLost(plan, now, i));
  if (lease >= 0) {
    return { do: "replan", why: `${plan.path.lease ?? "the netkit device"} of the lease was deleted` };
  }
  const { repairs, reasons } = repairsFor(plan, before, now, memory.queues);
  if (link.xdp !== null && !now.attached && plan.path.backend === "af_xdp") {
    return {
      do: "stop",
      code: "E_FOREIGN_XDP",
      why: `the split's XDP program is gone from ${link.name} and another one (${link.xdp.programId}) is attached`,
    };
  }
  const lost =
    plan.path.kind === "own-queue" ? plan.path.queues.filter((each) => each >= count(now, before)) : [];
  if (lost.length > 0) {
    return { do: "replan", why: `${link.name} no longer has the split's own queue ${lost.join(", ")}` };
  }
  if (repairs.length > 0) return { do: "repair", repairs, why: reasons.join("; ") };
  return { do: "nothing" };
}

/** Up to which MTU the path, as it was opened, gets every frame whole. */
function mtuLimit(plan: Plan): { mtu: number; whose: string } {
  const { backend, mode, multiBuffer, fragments } = plan.path;
  const { driver, mtu } = plan.device;
  const driverMtu = (mode === "driver" ? driverNotes(driver).maxMtu : null) ?? Infinity;
  // A pool that was made with long frames takes them; one without takes what fits a frame.
  const long = backend === "af_packet" ? mtu > FRAME_MTU : multiBuffer;
  if (long && (backend === "af_packet" || fragments)) return { mtu: Infinity, whose: "" };
  if (long) return { mtu: driverMtu, whose: `${driver} takes XDP` };
  return driverMtu < FRAME_MTU
    ? { mtu: driverMtu, whose: `${driver} takes XDP` }
    : { mtu: FRAME_MTU, whose: "the split was opened for frames" };
}

/** Receive queues of the card; as many as before where it does not say. */
function count(now: Observation, before: Observation): number {
  const channels = now.channels ?? before.channels;
  return channels === null ? Infinity : channels.combined + channels.rx;
}

/** Channels are the user's to change; rules, RSS and features of ours that a driver reset dropped come back. */
function isLost(plan: Plan, now: Observation, step: number): boolean {
  return now.stepsHold[step] === false && plan.steps[step]?.apply.kind !== "channels";
}

function repairsFor(
  plan: Plan,
  before: Observation,
  now: Observation,
  queues: readonly number[],
): { repairs: Repair[]; reasons: string[] } {
  const repairs: Repair[] = [];
  const reasons: string[] = [];
  if (!now.attached) {
    repairs.push({ kind: "attach" });
    const place = plan.path.backend === "af_xdp" ? "XDP program" : "program at tc ingress";
    reasons.push(`the ${place} was detached`);
  }
  if (plan.path.backend === "af_xdp") {
    if (now.channels !== null && plan.path.kind !== "own-queue") {
      const total = now.channels.combined + now.channels.rx;
      const fewer = queues.filter((queue) => queue >= total);
      if (fewer.length > 0) {
        repairs.push({ kind: "close-queues", queues: fewer });
        reasons.push(`the card has ${total} queues now`);
      }
      // A path on all queues wants all of the new ones too; a list that the user gave stays as it is.
      const wasAll = queues.length >= count(before, before);
      const have = new Set(queues);
      const more = wasAll ? range(total).filter((queue) => !have.has(queue)) : [];
      if (more.length > 0) {
        repairs.push({ kind: "open-queues", queues: more });
        reasons.push(`the card has ${total} queues now`);
      }
    }
  }
  const dead = now.deadQueues.filter(
    (queue) => now.channels === null || queue < now.channels.combined + now.channels.rx,
  );
  if (dead.length > 0) {
    repairs.push({ kind: "open-queues", queues: dead });
    reasons.push(`the sockets of the queues ${dead.join(", ")} died`);
  }
  const steps = range(plan.steps.length).filter((i) => isLost(plan, now, i));
  if (steps.length > 0) {
    repairs.push({ kind: "steps", steps });
    reasons.push(`lost: ${steps.map((i) => plan.steps[i]?.words ?? "").join(", ")}`);
  }
  return { repairs, reasons };
}

function range(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}
