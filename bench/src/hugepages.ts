// Hugepages for the peers: taken when a bench needs them, given back when it ends, however it ends.
import { readFileSync, writeFileSync } from "node:fs";

const total = "/proc/sys/vm/nr_hugepages";
const unused = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

function read(file: string): number {
  return Number(readFileSync(file, "utf8"));
}

/** What a testpmd with `-m 512` takes, and room for a pool of ours. */
export const BENCH_PAGES = 340;

/** Makes at least `pages` pages of 2 MiB free; the returned function takes away as many as were added. */
export function takeHugepages(pages: number): () => void {
  const missing = Math.max(0, pages - read(unused));
  const before = read(total);
  if (missing > 0) {
    writeFileSync("/proc/sys/vm/compact_memory", "1"); // after a build, free memory lies in small pieces
    writeFileSync(total, String(before + missing));
  }
  const added = read(total) - before;
  let given = false;
  const giveBack = () => {
    if (!given && added > 0) writeFileSync(total, String(Math.max(0, read(total) - added)));
    given = true;
    process.removeListener("exit", giveBack);
  };
  process.once("exit", giveBack);
  const free = read(unused);
  if (free < pages) {
    giveBack();
    throw new Error(
      `asked the kernel for ${pages} free hugepages of 2 MiB and got ${free}: too little free memory`,
    );
  }
  return giveBack;
}
