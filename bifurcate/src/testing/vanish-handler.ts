// A handler whose frame's memory is taken away while it reads the frame: a hole is punched into the pool's huge pages,
// and the kernel has none left to fill it with.

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import type { Batch } from "bifurcate";

/** What the handler saw: the sum of the frame's bytes before the hole and after it. */
export interface Seen {
  readonly before: number;
  readonly after: number;
}

const RESERVED = "/proc/sys/vm/nr_hugepages";
let done = false;

/** Takes every huge page that is neither in use nor promised from the kernel's reserve. */
function drain(): void {
  const text = readFileSync("/proc/meminfo", "utf8");
  const [free, promised] = ["Free", "Rsvd"].map((name) =>
    Number(new RegExp(`HugePages_${name}:\\s+(\\d+)`).exec(text)![1]),
  ) as [number, number];
  const reserved = Number(readFileSync(RESERVED, "utf8"));
  writeFileSync(RESERVED, String(reserved - (free - promised)));
}

/** Reads the first frame, punches the hole (`VANISH_FILE`, `VANISH_LENGTH`), reads it again, and says what it saw. */
export function handle(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    if (done) continue;
    done = true;
    const { at, size } = batch;
    const sum = (): number =>
      Array.from({ length: size }, (_, n) => view.getUint8(at + n)).reduce((a, b) => a + b);
    const before = sum();
    const { VANISH_FILE, VANISH_LENGTH, VANISH_SEEN } = process.env;
    execFileSync("fallocate", ["--punch-hole", "--offset", "0", "--length", VANISH_LENGTH!, VANISH_FILE!]);
    drain();
    writeFileSync(VANISH_SEEN!, JSON.stringify({ before, after: sum() } satisfies Seen));
  }
}
