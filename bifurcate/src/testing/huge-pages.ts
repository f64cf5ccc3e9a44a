// For tests: huge pages of 2 MiB in the kernel's reserve, of which others may have some at the same time.

import { existsSync, readFileSync, writeFileSync } from "node:fs";

const RESERVED = "/proc/sys/vm/nr_hugepages";
const TIDYING = ["/proc/sys/vm/drop_caches", "/proc/sys/vm/compact_memory"];

/** How many the kernel has in reserve. */
export const reservedPages = (): number => Number(readFileSync(RESERVED, "utf8"));

/** How many of those nobody has. */
export const freePages = (): number =>
  Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync("/proc/meminfo", "utf8"))![1]);

/** Adds so many to the reserve, as far as there is memory for them, or takes so many back. */
export function addPages(more: number): void {
  writeFileSync(RESERVED, `${Math.max(0, reservedPages() + more)}`);
}

/**
 * Adds pages until none is missing; false where the kernel finds no memory for them, which it may need some time for.
 * @param missing How many are.
 */
export async function providePages(missing: () => number): Promise<boolean> {
  for (let tries = 0; tries < 100 && missing() > 0; tries += 1) {
    addPages(missing());
    if (missing() > 0) {
      // Memory may be there, and full of what was read from files, or in pieces.
      for (const word of TIDYING) if (existsSync(word)) writeFileSync(word, "1");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  return missing() <= 0;
}
