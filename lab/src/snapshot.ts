// Writes down every setting of a card that a split may touch, so that before and after can be compared.

import { readFile } from "node:fs/promises";
import { ip, run } from "./tools.js";

/** What was asked, and the answer: ["ethtool -k", "..."]. A program that is not installed is left out. */
export type Snapshot = readonly (readonly [asked: string, answer: string])[];

/** Asks ethtool, ip and tc about a card. Counters and program ids are history, and not among it. */
export async function snapshot(netns: string, ifname: string): Promise<Snapshot> {
  const asked: [string, string[]][] = [
    ...["-l", "-k", "-x", "-n", "-g", "-c"].map((flag): [string, string[]] => ["ethtool", [flag, ifname]]),
    ["tc", ["qdisc", "show", "dev", ifname]],
    ["tc", ["filter", "show", "dev", ifname, "ingress"]],
    ["tc", ["filter", "show", "dev", ifname, "egress"]],
  ];
  const links = await ip(["-d link show"], netns);
  const rows: [string, string][] = [["ip -d link", links]];
  for (const [program, args] of asked) {
    const command = ["netns", "exec", netns, program, ...args];
    const { status, stdout, stderr } = await run("ip", command);
    if (/No such file or directory/.test(stderr) && /exec of/.test(stderr)) continue;
    rows.push([`${program} ${args.join(" ")}`, `${stdout}${stderr}(status ${status})`]);
  }
  const hugepages = await readFile("/proc/sys/vm/nr_hugepages", "utf8").catch(() => "none\n");
  rows.push(["/proc/sys/vm/nr_hugepages", hugepages]);
  return rows;
}

/** The lines that differ, as "ethtool -k nic0: - rx-gro: on"; none when nothing does. */
export function differences(before: Snapshot, after: Snapshot): string[] {
  const later = new Map(after);
  return before.flatMap(([asked, answer]) => {
    const now = later.get(asked) ?? "(not asked)";
    if (now === answer) return [];
    const [old, fresh] = [answer.split("\n"), now.split("\n")];
    return [
      ...old.filter((line) => !fresh.includes(line)).map((line) => `${asked}: - ${line.trim()}`),
      ...fresh.filter((line) => !old.includes(line)).map((line) => `${asked}: + ${line.trim()}`),
    ];
  });
}
