// How long each step of a grant took, for the audit log.

/** Laps of one piece of work, in milliseconds. */
export class Stopwatch {
  readonly laps: Record<string, number> = {};
  private last = performance.now();

  /** The time since the lap before, or the start, was for this. */
  lap(name: string): void {
    const now = performance.now();
    this.laps[name] = Math.round((now - this.last) * 1000) / 1000;
    this.last = now;
  }
}
