// Hugepages for the peers: taken when a bench needs them, given back when it ends, however it ends.
import { readFileSync, writeFileSync } from "node:fs";

const total = "/proc/sys/vm/nr_hugepages";

/** Raises the number of 2 MiB pages to at least `pages`; the returned function restores the number from before. */
export function takeHugepages(pages: number): () => void {
  const before = Number(readFileSync(total, "utf8"));
  if (before < pages) writeFileSync(total, String(pages));
  const now = Number(readFileSync(total, "utf8"));
  const giveBack = () => {
    if (before < pages) writeFileSync(total, String(before));
    process.removeListener("exit", giveBack);
  };
  process.once("exit", giveBack);
  if (now < pages) {
    giveBack();
    throw new Error(
      `asked the kernel for ${pages} hugepages of 2 MiB and got ${now}: too little free memory in one piece`,
    );
  }
  return giveBack;
}
