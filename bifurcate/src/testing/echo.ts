// Answers UDP datagrams over IPv4 with what they say: as a function, and as the source of a handler file.

import type { Batch } from "bifurcate";

/** Addresses and ports swapped, which leaves every checksum right; the UDP checksum is left out. */
export function echo(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    const at = batch.at;
    if (batch.size < 42 || view.getUint16(at + 12) !== 0x0800 || view.getUint8(at + 14) !== 0x45) continue;
    // Where the two of a pair stand, and how many 16-bit words each has: MAC addresses, IP addresses, ports.
    for (const [a, b, words] of [
      [0, 6, 3],
      [26, 30, 2],
      [34, 36, 1],
    ] as const) {
      for (let i = 0; i < words; i++) {
        const word = view.getUint16(at + a + 2 * i);
        view.setUint16(at + a + 2 * i, view.getUint16(at + b + 2 * i));
        view.setUint16(at + b + 2 * i, word);
      }
    }
    view.setUint16(at + 40, 0);
    batch.send();
  }
}

/** A handler file that does the same. */
export const ECHO = `export const handle = ${echo.toString()};\n`;
