// A queue's loop while nothing comes: it sleeps, or never does; the event loop has its turns either way.

import { describe, expect, it } from "vitest";
import { BLOCK_WORDS } from "./layout.js";
import type { NativeQueue } from "./native.js";
import { QueueLoop } from "./queue-loop.js";

/** A queue that nothing comes by. */
class Quiet implements NativeQueue {
  turns = 0;
  sleeps = 0;
  released = false;
  stopped = false;
  constructor(readonly busyPoll: boolean) {}
  pool = (): ArrayBuffer => new ArrayBuffer(64);
  block = (): ArrayBuffer => new ArrayBuffer(4 * BLOCK_WORDS);
  turn = (): number => {
    this.turns += 1;
    return this.stopped ? -1 : 0;
  };
  wait = (): number => {
    this.sleeps += 1;
    return 0;
  };
  onReady = (ready: () => void): boolean => {
    this.sleeps += 1;
    setImmediate(ready);
    return true;
  };
  kept = (): number => 0;
  starved = (): boolean => false;
  release = (): void => {
    this.released = true;
  };
}

describe.each([
  ["a thread of its own", true],
  ["a thread with others", false],
])("in %s", (_, mayBlock) => {
  it.each([
    ["that is to poll without sleeping never sleeps", true],
    ["sleeps", false],
  ])("a loop %s while nothing comes", async (_, busyPoll) => {
    const queue = new Quiet(busyPoll);
    const loop = new QueueLoop(queue, () => undefined, { port: "quiet", place: 0, places: 1, mayBlock });
    const running = loop.run();
    // A timer, which a loop that never gives way would keep from ever coming.
    await new Promise((resolve) => setTimeout(resolve, 20));
    queue.stopped = true;
    await running;
    expect(queue.released).toBe(true);
    expect(queue.turns).toBeGreaterThan(1);
    if (busyPoll) expect(queue.sleeps).toBe(0);
    else expect(queue.sleeps).toBeGreaterThan(0);
  });
});
