// Frames for tests of ports without a card: sent by one port, swapped by another, counted when they come back.

import { open, type Batch, type Port } from "bifurcate";

/** MAC addresses swapped and sent back: as a function, and as the source of a handler file. */
export function swap(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    for (let i = 0; i < 6; i += 2) {
      const word = view.getUint16(batch.at + i);
      view.setUint16(batch.at + i, view.getUint16(batch.at + 6 + i));
      view.setUint16(batch.at + 6 + i, word);
    }
    batch.send();
  }
}

/** A handler file that does the same. */
export const SWAP = `export const handle = ${swap.toString()};\n`;

/** What came back of what was sent. */
export interface RoundTrip {
  readonly sent: number;
  /** Each once, in any order, its addresses swapped. */
  readonly returned: number;
}

const DESTINATION = 0x0202;
const SOURCE = 0x0404;

/**
 * Sends numbered frames out of a port and waits until each has come back swapped, a few on the way at a time.
 * @param port Runs nothing.
 */
export async function roundTrip(port: Port, count: number, length = 60): Promise<RoundTrip> {
  const source = await open(`loopback:frames=1024,frameSize=4096,length=${length}`);
  const seen = new Set<number>();
  // A pool has 48 jumbo frames a queue: more of them on the way would be lost.
  const onTheWay = length > 1500 ? 16 : 64;
  let sent = 0;
  const back = port.run(
    (batch) => {
      const { view } = batch;
      while (batch.next()) {
        const { at, size } = batch;
        if (size !== length || view.getUint16(at) !== SOURCE || view.getUint16(at + 6) !== DESTINATION)
          continue;
        seen.add(view.getUint32(at + 14));
      }
      if (seen.size >= count) void source.stop();
    },
    { outputs: [] },
  );
  const end = AbortSignal.timeout(100_000);
  await source.run(
    (batch) => {
      const { view } = batch;
      while (batch.next()) {
        if (sent >= count || sent - seen.size >= onTheWay) continue;
        view.setUint16(batch.at, DESTINATION);
        view.setUint16(batch.at + 6, SOURCE);
        view.setUint32(batch.at + 14, sent++);
        batch.send(length, 1);
      }
    },
    { outputs: [port], signal: end },
  );
  await source.close();
  await port.stop();
  await back;
  return { sent, returned: seen.size };
}
