// The lasting settings that a split changes, as steps with their undo.
import { BifurcateError } from "../errors.js";
import type { Facts } from "../facts/facts.js";
import type { Channels, Feature } from "../kernel.js";
import { carveOut, defaultTable, freeLocations, restoreTable } from "./carveout.js";
import type { Flow } from "./flow.js";
import type { Way } from "./ladder.js";
import type { SplitRequest, Step } from "./plan.js";

type Device = Step["device"];

/** VLAN stripping, the card's own filter of VLANs, large receive offload and hardware GRO, by their `ethtool -k` names. */
const VLAN_STRIPPING = "rx-vlan-hw-parse";
const VLAN_FILTER = "rx-vlan-filter";
const LRO = "rx-lro";
const GRO_HW = "rx-gro-hw";
const NTUPLE = "rx-ntuple-filter";

function switchFeature(device: Device, feature: string, on: boolean, words: string): Step {
  return {
    device,
    when: "before",
    apply: { kind: "feature", feature, on },
    undo: { kind: "feature", feature, on: !on },
    words,
  };
}

function isOn(features: Readonly<Record<string, Feature>>, name: string): boolean {
  return features[name]?.active === true;
}

/**
 * Features in the way. VLAN tags that the card strips are invisible to XDP: stripping goes off where flows
 * look at tags, where VLAN devices sit on the card (their frames would look untagged to the flow) and for the
 * whole card. E_FEATURE_FIXED where a flow looks at tags and stripping cannot be switched.
 */
export function featureSteps(
  facts: Facts,
  flows: readonly Flow[],
  way: Way,
  device: Device,
): { steps: Step[]; warnings: string[] } {
  const steps: Step[] = [];
  const warnings: string[] = [];
  if (way.backend !== "af_xdp") return { steps, warnings };
  const looks = flows.find((flow) => flow.vlan);
  const concerned = looks !== undefined || facts.vlans.length > 0 || flows.some((flow) => flow.all);
  // A virtual device strips nothing: what looks like it is a tag that the sender never wrote into the frame.
  const virtual = facts.driver.driver === "veth";
  if (concerned && virtual && looks !== undefined) {
    warnings.push(
      `VLAN tags that the peer of ${device.name} leaves to offload are invisible to XDP: ` +
        "on the peer, `ethtool -K PEER tx-vlan-hw-insert off`",
    );
  }
  // The kernel tells the card the VLANs of the VLAN devices on it; others never reach XDP.
  if (looks !== undefined && !virtual && isOn(facts.features, VLAN_FILTER)) {
    const ids = facts.vlans.map((vlan) => String(vlan.vlanId));
    warnings.push(
      `the card drops tagged frames of all VLANs but those of VLAN devices on it (${ids.length > 0 ? ids.join(", ") : "there are none"}): ` +
        `${VLAN_FILTER} is on. \`ip link add link ${device.name} name ${device.name}.5 type vlan id 5\` lets VLAN 5 in`,
    );
  }
  const stripping = facts.features[VLAN_STRIPPING];
  if (concerned && stripping?.active === true && (!virtual || looks !== undefined)) {
    if (!stripping.fixed) {
      steps.push(
        switchFeature(device, VLAN_STRIPPING, false, "stop stripping VLAN tags, so that XDP sees them"),
      );
    } else if (looks !== undefined) {
      throw new BifurcateError("E_FEATURE_FIXED", {
        what: `split ${device.name} for '${looks.text}'`,
        why: `the card strips VLAN tags before XDP sees the frame, and ${VLAN_STRIPPING} is fixed`,
        next: "Use --backend af_packet, which sees the tags, or flows without VLANs.",
        data: { feature: VLAN_STRIPPING },
      });
    } else {
      const names = facts.vlans.map((vlan) => vlan.name).join(", ");
      warnings.push(
        `the card strips VLAN tags and cannot stop: a flow takes tagged frames too${names === "" ? "" : `, those of ${names} among them`}`,
      );
    }
  }
  // Generic mode makes the kernel switch LRO and GRO-HW off without switching them on again, net/core/dev.c
  // generic_xdp_install(); drivers refuse XDP while LRO is on. Switched off as a step, they come back.
  const below = way.mode === "generic" ? facts.lower : [];
  for (const { link, features } of [{ link: facts.link, features: facts.features }, ...below]) {
    const at = { ifindex: link.index, name: link.name };
    const names = way.mode === "generic" && link.index === device.ifindex ? [LRO, GRO_HW] : [LRO];
    for (const name of names) {
      if (isOn(features, name) && features[name]?.fixed === false) {
        steps.push(switchFeature(at, name, false, `switch ${name} off, which cannot work with XDP`));
      }
    }
  }
  return { steps, warnings };
}

/**
 * The filter at tc ingress that keeps the flow from the kernel, where the kernel has no tcx: unlike a link it outlives
 * a process that is killed, and would take the flow from everybody.
 */
export function ingressSteps(facts: Facts, way: Way, device: Device): Step[] {
  const { ingress } = facts;
  if (way.backend !== "af_packet" || ingress === null || ingress.tcx) return [];
  const filter = {
    kind: "ingress-filter",
    name: `bifurcate-${facts.fresh}`,
    qdisc: !ingress.clsact,
  } as const;
  return [
    {
      device,
      when: "before",
      apply: { ...filter, present: true },
      undo: { ...filter, present: false },
      words: "keep the flow from the kernel by a clsact filter, since it has no tcx",
    },
  ];
}

/** Which queues become the split's own, and how many the card has by then. */
export interface OwnQueueChoice {
  readonly own: readonly number[];
  /** Receive queues once the channels are as planned. */
  readonly queues: number;
  /** The channels to set, null where they stay. */
  readonly channels: Channels | null;
}

/**
 * Chooses own queues: those the user lists; else ones that RSS does not use anyway; else the highest. A card
 * that could have more queues gets one more rather than give up the kernel's only one.
 */
export function ownQueueChoice(facts: Facts, request: SplitRequest): OwnQueueChoice {
  const now =
    facts.channels === null ? facts.link.rxQueues : facts.channels.now.combined + facts.channels.now.rx;
  if (typeof request.queues === "object") return { own: request.queues, queues: now, channels: null };
  const count = request.queues ?? 1;
  const max = facts.channels?.max.combined ?? 0;
  const current = facts.channels?.now;
  let queues = now;
  let channels: Channels | null = null;
  if (current !== undefined && current.rx === 0 && now <= count && max > count) {
    queues = count + 1;
    channels = { ...current, combined: queues };
  }
  const lent = new Set(facts.leases.queues);
  const spread = new Set(channels === null ? (facts.rss?.indirection ?? []) : []);
  const idle = Array.from({ length: queues }, (_, i) => i).filter(
    (queue) => spread.size > 0 && !spread.has(queue) && !lent.has(queue),
  );
  const highest = Array.from({ length: queues }, (_, i) => queues - 1 - i).filter(
    (queue) => !idle.includes(queue) && !lent.has(queue),
  );
  const own = [...idle, ...highest].slice(0, count).sort((a, b) => a - b);
  return { own, queues, channels };
}

/** Steps that keep the kernel's traffic off the own queues; null where the kernel would have none left. */
export function carveOutSteps(facts: Facts, choice: OwnQueueChoice, device: Device): Step[] | null {
  const steps: Step[] = [];
  if (choice.channels !== null && facts.channels !== null) {
    steps.push({
      device,
      when: "before",
      apply: { kind: "channels", channels: choice.channels },
      undo: { kind: "channels", channels: facts.channels.now },
      words: `set ${choice.queues} combined queues`,
    });
  }
  const before = facts.rss?.indirection ?? [];
  const now =
    facts.channels === null ? facts.link.rxQueues : facts.channels.now.combined + facts.channels.now.rx;
  const restore = restoreTable(before, now);
  // With more channels a default table spreads over them too; an explicit one stays as it is.
  const start =
    restore === null && choice.channels !== null ? defaultTable(before.length, choice.queues) : before;
  const carved = carveOut(start, choice.queues, choice.own);
  if (carved === null) return null;
  if (start !== before || carved.some((queue, i) => queue !== before[i])) {
    const names = choice.own.join(", ");
    steps.push({
      device,
      when: "before",
      apply: { kind: "rss", indirection: carved },
      undo: { kind: "rss", indirection: restore },
      was: { kind: "rss", indirection: before },
      words: `take queue ${names} out of the RSS table`,
    });
  }
  return steps;
}

/** The step that lends the own queues to a netkit device of the split's own. */
export function leaseStep(
  facts: Facts,
  own: readonly number[],
  device: Device,
): { step: Step; name: string } {
  // Fifteen bytes at most; nobody else's device has that name.
  const name = `bflease-${facts.fresh}`;
  const lease = { kind: "lease", name, queues: own } as const;
  const step: Step = {
    device,
    when: "before",
    apply: { ...lease, present: true },
    undo: { ...lease, present: false },
    words: `lease queue ${own.join(", ")} to the netkit device ${name}`,
  };
  return { step, name };
}

/** Steps that steer the flows to the own queues, and where the rules are put. */
export function ruleSteps(
  facts: Facts,
  flows: readonly Flow[],
  own: readonly number[],
  device: Device,
): { steps: Step[]; locations: number[] } {
  const steps: Step[] = [];
  const ntuple = facts.features[NTUPLE];
  if (ntuple !== undefined && !ntuple.active) {
    steps.push(switchFeature(device, NTUPLE, true, "switch ntuple rules on"));
  }
  const rules = flows.flatMap((flow) => ("rules" in flow.ntuple ? flow.ntuple.rules : []));
  const used = facts.ntuple?.rules.map((rule) => rule.location) ?? [];
  const locations = freeLocations(facts.ntuple?.capacity ?? 0, used, rules.length);
  rules.forEach((rule, i) => {
    const location = locations[i] ?? 0;
    const queue = own[i % own.length] ?? 0;
    const bytes = Buffer.from(rule.forQueue(queue, location)).toString("hex");
    steps.push({
      device,
      when: "after",
      apply: {
        kind: "ntuple",
        location,
        bytes,
        words: `flow-type ${rule.words} action ${queue} loc ${location}`,
      },
      undo: { kind: "ntuple", location, bytes: null },
      words: `steer ${rule.words} to queue ${queue} (rule ${location})`,
    });
  });
  return { steps, locations };
}
