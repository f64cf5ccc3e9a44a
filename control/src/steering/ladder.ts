// Which way a split goes: the rungs from zero-copy on an own queue down to AF_PACKET, each refusal with its reason.
import type { Facts } from "../facts/facts.js";
import { driverNotes } from "./drivers.js";
import type { Flow } from "./flow.js";
import type { Backend, Mode, Path, Refusal, Rung, SplitRequest } from "./plan.js";

/** A backend and how its program is attached. */
export interface Way {
  readonly backend: Backend;
  /** null for af_packet. */
  readonly mode: Mode | null;
}

/** The ways in order, best first. */
const WAYS: readonly Way[] = [
  { backend: "af_xdp", mode: "driver" },
  { backend: "af_xdp", mode: "generic" },
  { backend: "af_packet", mode: null },
];

const NAMES = { driver: "AF_XDP in driver mode", generic: "AF_XDP in generic mode" } as const;

function nameOf(way: Way): string {
  return way.mode === null ? "AF_PACKET" : NAMES[way.mode];
}

/**
 * The best way that is open, with all rungs; `way` is null where none is. A way that the user did not ask
 * for is no rung.
 */
export function chooseWay(facts: Facts, request: SplitRequest): { way: Way | null; rungs: Rung[] } {
  const backend = request.backend ?? "auto";
  const mode = request.mode ?? "auto";
  const wanted = WAYS.filter(
    (way) =>
      (backend === "auto" || way.backend === backend) &&
      (mode === "auto" || way.mode === null || way.mode === mode) &&
      // A mode is asked for: no silent step to a backend that has none.
      !(mode !== "auto" && way.mode === null && backend === "auto"),
  );
  const rungs: Rung[] = [];
  let way: Way | null = null;
  for (const candidate of wanted) {
    const why = refusal(facts, candidate, request.avoid ?? []);
    if (way !== null) {
      rungs.push({ name: nameOf(candidate), taken: false, why: "a better way is open" });
    } else if (why === null) {
      way = candidate;
      const asked = backend !== "auto" || mode !== "auto";
      rungs.push({
        name: nameOf(candidate),
        taken: true,
        why: asked ? "asked for" : "the best way that is open",
      });
    } else {
      rungs.push({ name: nameOf(candidate), taken: false, why });
    }
  }
  return { way, rungs };
}

/** Why a way is closed, or null. */
function refusal(facts: Facts, way: Way, avoid: readonly Refusal[]): string | null {
  const refused = avoid.find((each) => each.backend === way.backend && (each.mode ?? way.mode) === way.mode);
  if (refused !== undefined) return refused.why;
  if (way.mode !== "driver") return null;
  const { driver } = facts.driver;
  const known = facts.xdpFeatures?.features;
  if (known !== undefined && !(known.includes("basic") && known.includes("redirect"))) {
    return `the driver ${driver} has no XDP of its own (it would run for every packet after the kernel's copy)`;
  }
  return mtuRefusal(facts);
}

/** Why the driver takes no XDP at this MTU, or null where it does. */
export function mtuRefusal(facts: Facts): string | null {
  const { driver } = facts.driver;
  const limit = driverNotes(driver).maxMtu;
  if (limit === null || facts.link.mtu <= limit) return null;
  if (facts.xdpFeatures?.features.includes("rx-sg") === true) return null;
  return `the MTU of ${facts.link.name} is ${facts.link.mtu}, and ${driver} takes XDP up to ${limit}`;
}

/**
 * Why the card cannot give the flows a queue of their own, or null where it can. `queues` is the number of
 * receive queues that the kernel may use.
 */
export function ownQueueRefusal(
  facts: Facts,
  request: SplitRequest,
  flows: readonly Flow[],
  queues: number,
): string | null {
  const { driver } = facts.driver;
  if (request.steering === "shared") return "shared queues were asked for";
  if (facts.ntuple === null || facts.ntuple.capacity === 0) return `${driver} has no ntuple rules`;
  const ntuple = facts.features["rx-ntuple-filter"];
  if (ntuple !== undefined && !ntuple.active && (ntuple.fixed || !ntuple.available)) {
    return `${driver} has ntuple rules switched off for good`;
  }
  if (facts.rss === null || facts.rss.indirection.length === 0) {
    return `${driver} has no RSS table, so the kernel's traffic cannot be kept off a queue`;
  }
  if (queues < 2) return `the card has ${queues} queue, and the kernel needs it`;
  for (const flow of flows) {
    if ("why" in flow.ntuple) return `'${flow.text}' cannot be said in ntuple rules: ${flow.ntuple.why}`;
  }
  const needed = flows.reduce(
    (sum, flow) => sum + ("rules" in flow.ntuple ? flow.ntuple.rules.length : 0),
    0,
  );
  const free = facts.ntuple.capacity - facts.ntuple.rules.length;
  if (needed > free) return `the flows need ${needed} ntuple rules and the card has ${free} left`;
  return null;
}

/**
 * Why the kernel cannot lend the card's queues to a netkit device, or null where it may. What a driver is not known
 * for is left to the kernel to say: newer ones may have learnt it.
 */
export function leaseRefusal(facts: Facts): string | null {
  if (!facts.leases.kernel) return "the running kernel has no queue leases (Linux 7.1)";
  if (facts.link.kind !== null) {
    return `${facts.link.name} is a virtual device (${facts.link.kind}), and only a card's queues can be leased`;
  }
  return null;
}

/**
 * The largest MTU whose frames fit one frame of the pool, bytes: net/xdp/xsk_buff_pool.c xp_assign_dev() rounds 2,048
 * less the headroom of 256 down to 128 bytes, and takes ETH_PAD_LEN off (Ethernet header, FCS, two VLAN tags).
 */
export const FRAME_MTU = 1_792 - 26;

/** Why zero-copy cannot be had on a path of this kind, or null where it may be. */
export function zeroCopyRefusal(facts: Facts, way: Way, kind: Path["kind"]): string | null {
  if (way.backend === "af_packet") return "AF_PACKET always copies";
  if (way.mode === "generic") return "XDP in generic mode always copies";
  if (kind === "shared-queues") {
    return "the queues are shared with the kernel, whose traffic would land in memory that user space can change";
  }
  const features = facts.xdpFeatures;
  if (features === null) return null;
  if (!features.features.includes("xsk-zerocopy"))
    return `the driver ${facts.driver.driver} has no zero-copy`;
  if (features.zeroCopyMaxSegments < 2 && facts.link.mtu > FRAME_MTU) {
    return `the MTU is ${facts.link.mtu}, and zero-copy of ${facts.driver.driver} takes one buffer a frame: up to ${FRAME_MTU}`;
  }
  return null;
}
