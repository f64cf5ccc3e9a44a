// A plan for a person: what will be taken, by which path, what it changes, and what it costs.

import type { Path, Plan } from "@bifurcate/control/steering/plan";

const STEERING = { ntuple: "ntuple rule", xdp: "XDP program", "packet-socket": "packet socket" } as const;

/** "queue 3 (own), zero-copy preferred, driver mode, ntuple rule 1022". */
export function pathWords(path: Path): string {
  const queues = `${path.queues.length === 1 ? "queue" : "queues"} ${path.queues.join(",")}`;
  const kind = {
    "own-queue": "own",
    "shared-queues": "shared with the kernel",
    "whole-card": "the whole card",
  };
  const words = [path.backend, `${queues} (${kind[path.kind]})`];
  if (path.mode !== null) words.push(`${path.mode} mode`);
  if (path.backend === "af_xdp") {
    words.push(
      { require: "zero-copy required", prefer: "zero-copy if it can be had", off: "copy" }[path.zeroCopy],
    );
  }
  words.push(STEERING[path.steering] + (path.rules.length > 0 ? ` ${path.rules.join(",")}` : ""));
  return words.join(", ");
}

function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? "" : `${title}\n${lines.map((line) => `  ${line}\n`).join("")}`;
}

/** The whole plan, as --dry-run prints it. */
export function renderPlan(plan: Plan): string {
  const { device } = plan;
  const outages = plan.outages.map(
    ({ what, seconds }) => `${what}${seconds === null ? "" : ` (about ${seconds} s)`}`,
  );
  return [
    `split ${device.name} (${device.driver}${device.bus === "" ? "" : `, ${device.bus}`}, MTU ${device.mtu})\n`,
    section("flows", plan.flows),
    section("path", [pathWords(plan.path)]),
    section(
      "ways looked at, best first",
      plan.ladder.map((rung) => `${rung.taken ? "taken" : "not"}: ${rung.name}: ${rung.why}`),
    ),
    section(
      "settings it changes, and puts back",
      plan.steps.map((step) =>
        step.device.name === device.name ? step.words : `${step.device.name}: ${step.words}`,
      ),
    ),
    section("outage to expect", outages.length === 0 ? ["none"] : outages),
    section("the flow is out of sight of", plan.bypasses),
    section("warnings", plan.warnings),
    section("notes", plan.notes),
  ].join("");
}
