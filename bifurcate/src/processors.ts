// The processors of this machine that threads can be bound to.

import { readFileSync } from "node:fs";
import { BifurcateError } from "@bifurcate/control/errors";
import { list, whole, type Kind } from "./check-options.js";

/** The processors that are there, as the kernel lists them: "0-3,8". */
const ONLINE = "/sys/devices/system/cpu/online";
/** More than any kernel is built for (NR_CPUS is at most 8192). */
export const PROCESSOR_MAX = 9999;

/** What the option `cores` may be: one after another, for one queue after another. */
export const cores: Kind = list(whole(0, PROCESSOR_MAX));

/** The numbers of a list as the kernel writes it, e.g. "0-3,8". */
export function processorsOf(text: string): ReadonlySet<number> {
  const numbers = new Set<number>();
  for (const [, first, last = first] of text.matchAll(/(\d+)(?:-(\d+))?/g)) {
    for (let number = Number(first); number <= Number(last); number += 1) numbers.add(number);
  }
  return numbers;
}

/**
 * Looks whether the processors are there.
 * @param option "cores", or "--cores" of the command line.
 * @param online What the kernel says.
 * @throws E_BAD_OPTION for one that this machine does not have.
 */
export function checkProcessors(
  what: string,
  option: string,
  wanted: readonly number[] | undefined,
  online = readFileSync(ONLINE, "utf8").trim(),
): void {
  if (wanted === undefined) return;
  const there = processorsOf(online);
  const missing = wanted.find((core) => !there.has(core));
  if (missing === undefined) return;
  throw new BifurcateError("E_BAD_OPTION", {
    what,
    why: `there is no processor ${missing}: this machine has ${online}`,
    next: "See them with `lscpu -e`; `cat /sys/class/net/DEV/device/numa_node` tells which are near the card.",
    data: { option, value: wanted.join(",") },
  });
}
