// The batches of a port as an async iterator: `for await (const batch of port)`.

import type { Batch } from "./batch.js";
import { leaked } from "./handler.js";
import type { NativeQueue } from "./native.js";
import { takeFor } from "./outputs.js";
import { batchOf } from "./queue-loop.js";
import type { Running, RunPort } from "./run.js";

/**
 * Yields batches of all queues on the calling thread. The verdicts of a batch are carried out when the next one
 * is asked for, or the loop is left.
 * @param hold Told what runs, and undefined when it has ended.
 * @throws E_HANDLER_LEAK when the pool runs dry and the loop keeps frames; E_CLOSED.
 */
export async function* batches(
  port: RunPort,
  hold: (running: Running | undefined) => void,
): AsyncGenerator<Batch, void, undefined> {
  const { native, name, takeQueue } = port;
  const queues: NativeQueue[] = [];
  let held = false;
  let ended!: () => void;
  const done = new Promise<void>((resolve) => (ended = resolve));
  const giveBack = (): void => {
    for (const queue of queues.splice(0)) queue.release();
  };
  hold({ done, terminate: () => Promise.resolve(), isHeld: () => held, giveBack });
  try {
    for (let place = 0; place < native.queues; place++) {
      queues.push(takeFor(takeQueue, name, native.id, place, null));
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
        held = true;
        yield batch;
        held = false;
        if (queues.length === 0) return;
      } else if (++idle >= queues.length) {
        idle = 0;
        for (const queue of queues) checkKept(queue);
        await anyReady(queues);
      }
    }
  } finally {
    giveBack();
    hold(undefined);
    ended();
  }
}

/** @throws E_HANDLER_LEAK: what a loop keeps it cannot give back, so it waits for frames that never come. */
function checkKept(queue: NativeQueue): void {
  const kept = queue.starved() ? queue.kept() : 0;
  if (kept > 0) throw leaked(kept);
}

function anyReady(queues: readonly NativeQueue[]): Promise<void> {
  return new Promise((resolve) => {
    for (const queue of queues) {
      if (!queue.onReady(resolve)) setImmediate(resolve);
    }
  });
}
