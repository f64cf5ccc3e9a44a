// Time that a handler has to come to an end, without what a machine that stood still took of it.

/** The most that one wait counts, in milliseconds: a machine that stands still for longer keeps whoever is waited for too. */
const STEP_MS = 50;

/**
 * How many times the grace may pass by the clock, whatever of it counts: loops that poll at a real-time priority can keep
 * this thread alone from its processor, for good.
 */
const CEILING = 10;

/**
 * Waits for the end, however it ends: `graceMs` of a machine that gets on at most, and ten times as long by the clock.
 * @param now The clock, in milliseconds; for a test.
 */
export async function within(
  graceMs: number,
  done: Promise<unknown>,
  now: () => number = () => performance.now(),
): Promise<void> {
  let over = false;
  const ended = done.catch(() => undefined).finally(() => (over = true));
  const end = now() + CEILING * graceMs;
  for (let left = graceMs; left > 0 && !over && now() < end; left -= STEP_MS) {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, Math.min(left, STEP_MS))));
    await Promise.race([ended, late]);
    clearTimeout(timer);
  }
}
