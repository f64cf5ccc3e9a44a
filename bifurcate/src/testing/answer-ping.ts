// For tests: a handler that answers ping, for programs that run in the lab's guest.

import type { Batch } from "bifurcate";

/** Answers ICMP echo requests over IPv4 (RFC 792): addresses swapped, type 8 made 0, the checksum mended. */
export function answerPing(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    const at = batch.at;
    if (batch.size < 42 || view.getUint16(at + 12) !== 0x0800 || view.getUint8(at + 23) !== 1) continue;
    if (view.getUint8(at + 34) !== 8) continue;
    for (let i = 0; i < 6; i += 2) swap(view, at + i, at + 6 + i);
    for (let i = 0; i < 4; i += 2) swap(view, at + 26 + i, at + 30 + i);
    view.setUint8(at + 34, 0);
    const sum = view.getUint16(at + 36) + 0x0800;
    view.setUint16(at + 36, (sum & 0xffff) + (sum >>> 16));
    batch.send();
  }
}

function swap(view: DataView, a: number, b: number): void {
  const word = view.getUint16(a);
  view.setUint16(a, view.getUint16(b));
  view.setUint16(b, word);
}
