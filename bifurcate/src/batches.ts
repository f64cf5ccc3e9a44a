// The batches of a port as an async iterator: `for await (const batch of port)`.

import type { Batch } from "./batch.js";
import type { NativeQueue } from "./native.js";
import { batchOf } from "./queue-loop.js";
import type { Running, RunPort } from "./run.js";

/**
 * Yields batches of all queues on the calling thread. The verdicts of a batch are carried out when the next one
 * is asked for, or the loop is left.
 * @param hold Told what runs, and undefined when it has ended.
 */
export async function* batches(
  port: RunPort,
  hold: (running: Running | undefined) => void,
): AsyncGenerator<Batch, void, undefined> {
  const queues: NativeQueue[] = [];
  let ended!: () => void;
  const done = new Promise<void>((resolve) => (ended = resolve));
  hold({ done, terminate: () => Promise.resolve() });
  try {
    for (let queue = 0; queue < port.native.queues; queue++) {
      queues.push(port.takeQueue(port.native.id, queue));
    }
    const cursors = queues.map((queue) => batchOf(queue).batch);
    const turns = queues.map((queue) => queue.turn);
    let idle = 0;
    for (let index = 0; ; index = (index + 1) % queues.length) {
      const count = turns[index]!();
      if (count < 0) return;
      if (count > 0) {
        idle = 0;
        const batch = cursors[index]!;
        batch.begin(count);
        yield batch;
      } else if (++idle >= queues.length) {
        idle = 0;
        await anyReady(queues);
      }
    }
  } finally {
    for (const queue of queues) queue.release();
    hold(undefined);
    ended();
  }
}

function anyReady(queues: readonly NativeQueue[]): Promise<void> {
  return new Promise((resolve) => {
    for (const queue of queues) {
      if (!queue.onReady(resolve)) setImmediate(resolve);
    }
  });
}
