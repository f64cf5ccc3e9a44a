// What every traffic program reports: one line of JSON on stdout each quarter of a second, and one at its end.

/** Requests sent and answers that came and were right. */
export interface Count {
  sent: number;
  answered: number;
  /** Bytes of the answers. */
  bytes: number;
  /** The last thing that went wrong, if anything did. */
  trouble: string | null;
}

/** Parses such a line. */
export function parseCount(line: string): Count {
  return JSON.parse(line) as Count;
}

/**
 * Runs a traffic program: several loops at once, until SIGINT, SIGTERM, or the end of stdin (so that it does not
 * outlive whoever started it). Requests that are under way are waited for.
 * @param loops Each sends one request, and resolves to the answer's bytes or throws what was wrong with it.
 */
export async function traffic(
  loops: readonly ((n: number) => Promise<number>)[],
  pauseMs = 0,
): Promise<void> {
  const count: Count = { sent: 0, answered: 0, bytes: 0, trouble: null };
  let running = true;
  const stop = (): void => {
    running = false;
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  process.stdin.on("end", stop).on("error", stop).resume();
  const say = (): void => void process.stdout.write(`${JSON.stringify(count)}\n`);
  const timer = setInterval(say, 250);
  const one = async (request: (n: number) => Promise<number>): Promise<void> => {
    for (let n = 0; running; n += 1) {
      count.sent += 1;
      try {
        const bytes = await request(n);
        count.bytes += bytes;
        count.answered += 1;
      } catch (error) {
        count.trouble = error instanceof Error ? error.message : String(error);
      }
      if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  };
  await Promise.all(loops.map(one));
  clearInterval(timer);
  process.stdout.write(`${JSON.stringify(count)}\n`, () => process.exit(0));
}
