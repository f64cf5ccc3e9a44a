// A handler in TypeScript: swaps the MAC addresses of every frame and sends it back, as testpmd's macswap does.
import type { Batch } from "bifurcate";

/** Destination and source are 6 bytes each, so three words of 4 bytes hold both. */
export function handle(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    const { at } = batch;
    const first = view.getUint32(at, true); // destination 0..3
    const middle = view.getUint32(at + 4, true); // destination 4..5, source 0..1
    const last = view.getUint32(at + 8, true); // source 2..5
    view.setUint32(at, (middle >>> 16) | (last << 16), true);
    view.setUint32(at + 4, (last >>> 16) | (first << 16), true);
    view.setUint32(at + 8, (first >>> 16) | (middle << 16), true);
    batch.send();
  }
}
