// The comparison: every mechanism by every criterion, from what is known, what this machine and card say, and measurements.
import type { Card } from "../doctor/card.js";
import type { Machine, ModuleName, Presence } from "../doctor/machine.js";
import { probeMechanisms, type MechanismState } from "../doctor/mechanisms/index.js";
import { hasRawPackets } from "../doctor/mechanisms/verbs.js";
import type { Statement } from "./cell.js";
import { CRITERION_NAMES, type Criterion } from "./criteria.js";
import { BASELINE, KNOWN } from "./known/index.js";
import type { Measurement, Outcome } from "./measurement.js";

/** One mechanism by all criteria. No cell is empty. */
export interface ComparedMechanism {
  readonly mechanism: string;
  /** Nothing known stands in its way on the card; null where no card was looked at. */
  readonly ready: boolean | null;
  readonly cells: Readonly<Record<Criterion, readonly Statement[]>>;
  /** What was measured; null where nothing was, which the performance cell explains. */
  readonly measurement: Measurement | null;
}

/** The whole comparison. */
export interface Comparison {
  /** When it was made, ISO 8601. */
  readonly made: string;
  /** uname -r. */
  readonly kernel: string;
  /** The machine is virtual, as its processor says. */
  readonly virtual: boolean;
  /** Processors, and how many processes wanted one when it began (the load average of a minute). */
  readonly processors: number;
  readonly load: number;
  /** Clock rate of its processors in MHz, as the kernel tells it; null where it does not. */
  readonly clock: number | null;
  /** An IOMMU is at work. */
  readonly iommu: boolean;
  /** The card that was looked at; null where there was none to look at. */
  readonly card: { readonly name: string; readonly driver: string; readonly queues: number } | null;
  /** What it was measured on, in words; null where it was not. */
  readonly measuredOn: string | null;
  readonly mechanisms: readonly ComparedMechanism[];
}

/** What a comparison is made from. */
export interface Comparing {
  readonly machine: Machine;
  readonly virtual: boolean;
  readonly processors: number;
  readonly load: number;
  readonly clock: number | null;
  readonly card: Card | null;
  /** By mechanism; what is missing was not asked for. */
  readonly outcomes: ReadonlyMap<string, Outcome>;
  /** The mechanisms to compare; all where left out. */
  readonly only?: readonly string[];
  readonly measuredOn: string | null;
  readonly now: Date;
}

/** Puts the comparison together. */
export function compare(asked: Comparing): Comparison {
  const { machine, card } = asked;
  const states = new Map(
    (card === null ? [] : probeMechanisms({ machine, card })).map((state) => [state.name, state]),
  );
  return {
    made: asked.now.toISOString(),
    kernel: machine.kernel,
    virtual: asked.virtual,
    processors: asked.processors,
    load: asked.load,
    clock: asked.clock,
    iommu: machine.iommu.groups > 0,
    card:
      card === null
        ? null
        : { name: card.facts.link.name, driver: card.facts.driver.driver, queues: card.queues },
    measuredOn: asked.measuredOn,
    mechanisms: Object.entries(KNOWN).flatMap(([mechanism, known]) => {
      if (asked.only !== undefined && !asked.only.includes(mechanism)) return [];
      const state = mechanism === BASELINE ? baseline(card) : (states.get(mechanism) ?? null);
      const outcome = asked.outcomes.get(mechanism);
      const measurement = outcome !== undefined && "measured" in outcome ? outcome.measured : null;
      const cells = Object.fromEntries(
        CRITERION_NAMES.map((criterion): [Criterion, Statement[]] => [
          criterion,
          [
            { kind: "known", ...known[criterion] },
            ...probed(criterion, mechanism, asked, state),
            ...(criterion === "performance" ? performance(outcome, asked.clock) : []),
            ...(criterion === "kernelNetdev" ? effect(outcome) : []),
          ],
        ]),
      ) as Record<Criterion, Statement[]>;
      return { mechanism, ready: state?.ready ?? null, cells, measurement };
    }),
  };
}

/** The baseline lacks nothing but a card that is up. */
function baseline(card: Card | null): MechanismState | null {
  if (card === null) return null;
  const { name, up } = card.facts.link;
  const lacks = up ? [] : [{ what: `${name} is down`, mend: `sudo ip link set dev ${name} up` }];
  return { name: BASELINE, ready: up, lacks };
}

/** The part of the kernel that a mechanism stands on; those that are left out need none, or show it nowhere. */
const PARTS: Readonly<Record<string, ModuleName | "afPacket" | "afXdp">> = {
  AF_PACKET: "afPacket",
  "AF_XDP copy": "afXdp",
  "AF_XDP zero-copy": "afXdp",
  "queue lease": "netkit",
  "VFIO group": "vfio-pci",
  "VFIO iommufd": "iommufd",
  "VFIO without IOMMU": "vfio-pci",
  uio_pci_generic: "uio_pci_generic",
  igb_uio: "igb_uio",
  "SR-IOV VF": "vfio-pci",
  verbs: "ib_uverbs",
};

const PRESENCE: Readonly<Record<Presence, string>> = {
  there: "has",
  module: "has as a module that is not loaded",
  absent: "was built without",
  unknown: "does not tell whether it has",
};

/** Mechanisms whose card reaches memory by addresses that the process gives it. */
const BY_DMA = /^(VFIO|uio_pci_generic|igb_uio|SR-IOV)/;

function probed(
  criterion: Criterion,
  mechanism: string,
  { machine, virtual, card }: Comparing,
  state: MechanismState | null,
): Statement[] {
  const say = (says: string, source: string): Statement[] => [{ kind: "probed", says, source }];
  switch (criterion) {
    case "upstream": {
      const part = PARTS[mechanism];
      if (part === undefined) return [];
      const presence =
        part === "afPacket" ? machine.afPacket : part === "afXdp" ? machine.afXdp : machine.modules[part];
      const name = { afPacket: "packet sockets", afXdp: "AF_XDP sockets" }[part as string] ?? part;
      return say(
        `this kernel (${machine.kernel}) ${PRESENCE[presence]} ${name}`,
        "/proc, /sys, /lib/modules",
      );
    }
    case "vm":
      return say(
        virtual ? "this machine is virtual" : "this machine is not virtual",
        "/proc/cpuinfo, flag hypervisor",
      );
    case "hardware":
      if (state === null) return say("no card was looked at: name one", "bifurcate compare DEV");
      if (state.ready) {
        const datagrams = mechanism === "verbs" && !hasRawPackets(card!.facts.driver.driver);
        return say(
          `ready on ${card!.facts.link.name}${datagrams ? " for datagrams; raw packets need a ConnectX" : ""}`,
          "the doctor's probe",
        );
      }
      return state.lacks.map(({ what, mend }) => ({
        kind: "probed" as const,
        says: mend === null ? what : `${what} (mend: ${mend})`,
        source: "the doctor's probe",
      }));
    case "security":
      if (!BY_DMA.test(mechanism)) return [];
      return say(
        machine.iommu.groups === 0
          ? "no IOMMU is at work here: nothing confines a card"
          : `an IOMMU is at work here (${machine.iommu.groups} groups)`,
        "/sys/kernel/iommu_groups",
      );
    default:
      return [];
  }
}

function performance(outcome: Outcome | undefined, clock: number | null): Statement[] {
  if (outcome === undefined) {
    return [
      { kind: "probed", says: "not measured: it was not asked for", source: "bifurcate compare --run" },
    ];
  }
  if ("why" in outcome) {
    return [{ kind: "probed", says: `not measured: ${outcome.why}`, source: "bifurcate compare --run" }];
  }
  const { saturated, latency, path } = outcome.measured;
  const measured = (says: string): Statement => ({ kind: "measured", says, source: outcome.by });
  return [
    measured(
      `${rate(saturated.received)} packets/s of ${rate(saturated.offered)} offered (${percent(saturated.loss)} lost), ` +
        `${Math.round(saturated.cpuPerPacket)} ns of CPU a packet${cycles(saturated.cpuPerPacket, clock)}, ${percent(saturated.cpu)} of a processor`,
    ),
    measured(
      `one way at ${rate(latency.offered)} packets/s: p50 ${micro(latency.p50)}, p99 ${micro(latency.p99)}, ` +
        `${percent(latency.loss)} lost`,
    ),
    measured(path),
  ];
}

/** Cycles of the clock in some nanoseconds of CPU time, in words; nothing where the clock is not known. */
function cycles(nanoseconds: number, clock: number | null): string {
  return clock === null ? "" : ` (${rate((nanoseconds * clock) / 1000)} cycles at ${Math.round(clock)} MHz)`;
}

/** What the kernel's traffic felt, as the mechanism was there, flooded, and stopped. */
function effect(outcome: Outcome | undefined): Statement[] {
  if (outcome === undefined || "why" in outcome) return [];
  const { kernel } = outcome.measured;
  if ("none" in kernel) {
    return [{ kind: "measured", says: `the kernel's own traffic: none, ${kernel.none}`, source: outcome.by }];
  }
  const says = (["quiet", "saturated", "stopped"] as const).map((phase) => {
    const { sent, answered, p50, p99 } = kernel[phase];
    const lost = sent === 0 ? 0 : 1 - answered / sent;
    return `${phase} p50 ${micro(p50)}, p99 ${micro(p99)}, ${percent(lost)} lost`;
  });
  return [
    {
      kind: "measured",
      says: `the kernel's own round trips: user queue ${says.join("; ")}`,
      source: outcome.by,
    },
  ];
}

/** "412 k", "1.20 M". */
export function rate(perSecond: number): string {
  if (perSecond >= 999_500) return `${(perSecond / 1e6).toFixed(2)} M`;
  if (perSecond >= 9_995) return `${Math.round(perSecond / 1e3)} k`;
  return `${Math.round(perSecond)}`;
}

/** "12 %", "0.3 %". */
export function percent(share: number): string {
  const hundred = Math.max(0, share) * 100;
  return `${hundred === 0 || hundred >= 10 ? Math.round(hundred) : hundred.toFixed(hundred >= 0.1 ? 1 : 3)} %`;
}

/** "85.0 µs", "12.5 ms", or that there is none. */
export function micro(value: number | null): string {
  if (value === null) return "none";
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} ms`;
  return `${value >= 100 ? Math.round(value) : value.toFixed(1)} µs`;
}
