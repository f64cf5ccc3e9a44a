// How long a handler that does not come to an end is waited for, on a machine that gets on, and on one that does not.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { within } from "./grace.js";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const never = new Promise<void>(() => undefined);

/** How many waits there were, of which each kept this thread for `tookMs`. */
async function waits(graceMs: number, tookMs: number): Promise<number> {
  let now = 0;
  let over = false;
  const waiting = within(graceMs, never, () => now).then(() => (over = true));
  let count = 0;
  for (; !over && count < 1000; count++) {
    now += tookMs;
    await vi.advanceTimersByTimeAsync(50);
  }
  await waiting;
  return count;
}

it.each([
  ["a machine that gets on", 50, 40],
  ["one that stands still for a while at each", 100, 40],
  ["one on which this thread is kept for good: ten times the grace by the clock", 1000, 20],
])("2 s of %s", async (_, tookMs, count) => {
  expect(await waits(2000, tookMs)).toBe(count);
});

it("is over with what is waited for, also when that fails, and at once where there is no grace", async () => {
  await within(2000, Promise.resolve());
  await within(2000, Promise.reject(new Error("it failed")));
  await within(0, never);
  expect(vi.getTimerCount()).toBe(0);
});
