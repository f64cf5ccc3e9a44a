// What was measured, as rows of short figures: the same in text, Markdown and HTML.

import type { Combined } from "@bifurcate/control/compare/combine";
import { micro, percent, rate, type Comparison } from "@bifurcate/control/compare/compare";
import type { KernelTraffic, Measurement } from "@bifurcate/control/compare/measurement";

/** A mechanism that was measured. */
export interface Measured {
  /** Its name, and the card's where there are several. */
  readonly mechanism: string;
  readonly measurement: Measurement;
}

/** What was measured on one card; `on`: the card, null where there is one. */
export interface MeasuredCard {
  readonly on: string | null;
  readonly measured: readonly Measured[];
}

/** All that was measured, card by card. */
export function measuredCards({ mechanisms }: Combined): MeasuredCard[] {
  const cards = new Map<string | null, Measured[]>();
  for (const { mechanism, measurements } of mechanisms) {
    for (const { on, measurement } of measurements) {
      cards.set(on, [...(cards.get(on) ?? []), { mechanism, measurement }]);
    }
  }
  return [...cards].map(([on, measured]) => ({ on, measured }));
}

/** A statement's words, after the cards that it was said of. */
export function saying({ on, says }: { readonly on: string | null; readonly says: string }): string {
  return on === null ? says : `${on}: ${says}`;
}

/** Headings of the flow's figures. */
export const FLOW_COLUMNS = [
  "mechanism",
  "packets/s",
  "of offered",
  "lost",
  "CPU/packet",
  "processor",
  "p50",
  "p99",
  "lost meanwhile",
] as const;

/** The flow's figures. */
export function flowRow({ mechanism, measurement }: Measured): string[] {
  const { saturated, latency } = measurement;
  return [
    mechanism,
    rate(saturated.received),
    rate(saturated.offered),
    percent(saturated.loss),
    `${Math.round(saturated.cpuPerPacket)} ns`,
    percent(saturated.cpu),
    micro(latency.p50),
    micro(latency.p99),
    percent(latency.loss),
  ];
}

/** Headings of the kernel's traffic. */
export const KERNEL_COLUMNS = ["mechanism", "quiet", "flooded", "stopped"] as const;

/** The kernel's own round trips: p50, p99 and what was lost, in each phase. */
export function kernelRow({ mechanism, measurement }: Measured): string[] {
  const { kernel } = measurement;
  if ("none" in kernel) return [mechanism, ...KERNEL_COLUMNS.slice(1).map(() => "none")];
  return [mechanism, ...[kernel.quiet, kernel.saturated, kernel.stopped].map(traffic)];
}

function traffic({ sent, answered, p50, p99 }: KernelTraffic): string {
  return `${micro(p50)} / ${micro(p99)} / ${percent(sent === 0 ? 0 : 1 - answered / sent)}`;
}

/** Where and on what, in some sentences. */
export function aboutMachine(comparisons: readonly Comparison[]): string {
  // The first one's load is others'; what comes later is busy with the measurement itself.
  const { kernel, virtual, processors, load } = comparisons[0]!;
  const looked = comparisons.flatMap(({ card }) => (card === null ? [] : [`${card.name} (${card.driver})`]));
  const on = looked.length === 0 ? "no card was looked at" : `card ${[...new Set(looked)].join(", ")}`;
  const each = [...new Set(comparisons.map(({ measuredOn }) => measuredOn))].filter(
    (where) => where !== null,
  );
  const measuredOn = each.length === 0 ? null : each.join("; ");
  const measured = measuredOn === null ? "nothing was measured" : `measured on ${measuredOn}`;
  // Whoever else wants the processors is in every figure.
  const busy =
    measuredOn !== null && load > processors / 2
      ? " Other work went on beside it, the machine was busy: times and rates are of that machine, and only their order says something."
      : "";
  const machine = `${virtual ? "a virtual machine" : "not a virtual machine"}, ${processors} processors, load ${load.toFixed(1)}`;
  return `Linux ${kernel}, ${machine}; ${on}; ${measured}.${busy}`;
}

/** How the figures came, for those who want to judge them. */
export const HOW = [
  "A sender process makes 78-byte UDP packets as fast as it can (flooded), or at a moderate rate (p50, p99 and what was lost meanwhile), and sends them " +
    "by a packet socket from the other end of the wire; to vhost-user by our virtio driver, to verbs by a port over the RDMA device there.",
  "The program is one thread of TypeScript that looks at each packet. CPU is that of its whole process; what the kernel does " +
    "in interrupts for it is not in it, cycles are that time by the clock that the kernel tells, and on a veth pair most of that falls to the sender.",
  "Times are one way, from stamping a packet until the program looks at it, on one clock.",
  "The kernel's own traffic is a UDP echo by ordinary sockets over the same card, about a thousand a second: p50 / p99 / lost, " +
    "while the user's queue is quiet, flooded, and flooded with its program stopped (SIGSTOP).",
  "Where a mechanism takes the card from the kernel, or the flow is the whole card, the kernel has no traffic over it: none. " +
    "Our own drivers poll, so their program takes a whole processor by design.",
  "Each phase is run once, so there is no spread: what differs by less than a few times may be chance, and where a quiet column loses, the machine was busy.",
  "On few processors all of this contends for them: compare rows with each other, not with other machines.",
];
