// A handler in TypeScript that looks at every frame's length, as the peer's callback does.
import type { Batch } from "bifurcate";

let bytes = 0;

export function handle(batch: Batch): void {
  while (batch.next()) bytes += batch.size;
}

/** Bytes seen, so that the loop above has a result that somebody may read. */
export function total(): number {
  return bytes;
}
