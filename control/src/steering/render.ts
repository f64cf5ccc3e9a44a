// A plan in words, for --dry-run. As JSON a plan prints itself: it is plain data.
import type { Change, Path, Plan } from "./plan.js";

const KINDS: Readonly<Record<Path["kind"], string>> = {
  "own-queue": "own queue",
  "shared-queues": "shared queues",
  "whole-card": "the whole card",
  "virtual-function": "a virtual function",
};

/** A path in one line, e.g. "own queue 3, AF_XDP in driver mode, zero-copy if it can be had, ntuple rule 1022". */
export function renderPath(path: Path): string {
  if (path.backend === "vf") return `${KINDS[path.kind]}, our own driver igbvf over VFIO, zero-copy`;
  const queues = path.backend === "af_packet" ? `${path.queues.length} socket(s)` : queueWords(path.queues);
  const backend = path.mode === null ? "AF_PACKET" : `AF_XDP in ${path.mode} mode`;
  const copy = { require: "zero-copy", prefer: "zero-copy if it can be had", off: "copy" }[path.zeroCopy];
  const lease = path.lease === null ? [] : [`leased to ${path.lease}`];
  const rules = path.rules.length === 0 ? [] : [`ntuple rule ${path.rules.join(", ")}`];
  return [`${KINDS[path.kind]} (${queues})`, backend, copy, ...lease, ...rules].join(", ");
}

function queueWords(queues: readonly number[]): string {
  return queues.length === 1 ? `queue ${queues[0]}` : `queues ${queues.join(", ")}`;
}

/** A change as the ethtool command that makes it. */
export function renderChange(device: string, change: Change): string {
  switch (change.kind) {
    case "feature":
      return `ethtool -K ${device} ${change.feature} ${change.on ? "on" : "off"}`;
    case "channels":
      return `ethtool -L ${device} combined ${change.channels.combined}`;
    case "rss":
      return change.indirection === null
        ? `ethtool -X ${device} default`
        : `ethtool -X ${device} weight ${weights(change.indirection).join(" ")}`;
    case "ntuple":
      return change.bytes === null
        ? `ethtool -N ${device} delete ${change.location}`
        : `ethtool -N ${device} ${change.words ?? `loc ${change.location}`}`;
    case "lease":
      // iproute2 knows no command for the lease itself; this is the device that it is made with.
      return change.present
        ? `ip link add ${change.name} numrxqueues ${change.queues.length + 1} type netkit single; queue-create of ${device} queue ${change.queues.join(", ")}`
        : `ip link del ${change.name}`;
    case "virtual-function":
      return change.present
        ? `echo 1 > /sys/bus/pci/devices/${change.card}/sriov_numvfs; ip link set ${device} vf 0 mac ${change.mac} spoofchk on`
        : `echo 0 > /sys/bus/pci/devices/${change.card}/sriov_numvfs`;
    case "ingress-filter":
      return change.present
        ? `tc filter add dev ${device} ingress bpf direct-action (${change.name})`
        : `tc ${change.qdisc ? `qdisc del dev ${device} clsact` : `filter del dev ${device} ingress (${change.name})`}`;
  }
}

/** How many entries of a table each queue has. */
function weights(table: readonly number[]): number[] {
  const counts: number[] = Array.from({ length: Math.max(...table) + 1 }, () => 0);
  for (const queue of table) counts[queue] = (counts[queue] ?? 0) + 1;
  return counts;
}

/** The whole plan as text, for a person who decides whether to go on. */
export function renderPlan(plan: Plan): string {
  const { device } = plan;
  const list = (title: string, lines: readonly string[], none?: string): string[] =>
    lines.length > 0
      ? [`${title}:`, ...lines.map((line) => `  ${line}`)]
      : none === undefined
        ? []
        : [`${title}: ${none}`];
  return [
    `split ${device.name} (${device.driver}, MTU ${device.mtu}) for ${plan.flows.map((flow) => `'${flow}'`).join(", ")}`,
    `path: ${renderPath(plan.path)}`,
    ...list(
      "beyond a frame's bytes",
      Object.entries(plan.path.metadata).map(([name, what]) => `${name}: ${what}`),
    ),
    ...list(
      "ways looked at",
      plan.ladder.map((rung) => `${rung.taken ? "*" : "-"} ${rung.name}: ${rung.why}`),
    ),
    ...list(
      "settings to change, and to put back at the end",
      plan.steps.map((step) => {
        const { name } = step.device;
        return `${step.words}: ${renderChange(name, step.apply)}; undo: ${renderChange(name, step.undo)}`;
      }),
      "none; everything goes with the process",
    ),
    ...list(
      "to expect",
      plan.outages.map((outage) =>
        outage.seconds === null ? outage.what : `${outage.what} (about ${outage.seconds} s)`,
      ),
    ),
    ...list("the flow no longer passes", plan.bypasses),
    ...(plan.confirmSeconds === null
      ? []
      : [`undoes itself after ${plan.confirmSeconds} s unless confirmed`]),
    ...list("warnings", plan.warnings),
    ...list("notes", plan.notes),
  ].join("\n");
}
