// Times by how often they were seen, for percentiles: 32 steps an octave, so that a value is at most 3 % off.

const STEPS = 32;
const OCTAVES = 40;

/** Counts times in nanoseconds. */
export class Histogram {
  private readonly counts = new Uint32Array(STEPS * OCTAVES);
  private total = 0;

  /** Counts one; what is negative (clocks of two processors may differ a little) counts as nothing. */
  add(nanoseconds: number): void {
    this.counts[place(nanoseconds)]! += 1;
    this.total += 1;
  }

  /** The value below which a share of all lie, in microseconds; null when nothing was counted. */
  percentile(share: number): number | null {
    if (this.total === 0) return null;
    const wanted = Math.max(1, Math.ceil(this.total * share));
    let seen = 0;
    for (let at = 0; at < this.counts.length; at += 1) {
      seen += this.counts[at]!;
      if (seen >= wanted) return middle(at) / 1000;
    }
    return null;
  }

  clear(): void {
    this.counts.fill(0);
    this.total = 0;
  }
}

function place(value: number): number {
  if (value < STEPS) return Math.max(0, Math.floor(value));
  const octave = Math.floor(Math.log2(value)) - 4;
  const step = Math.floor(value / 2 ** (octave - 1)) - STEPS;
  return Math.min(STEPS * OCTAVES - 1, octave * STEPS + step);
}

function middle(at: number): number {
  if (at < STEPS) return at;
  const octave = Math.floor(at / STEPS);
  return ((at % STEPS) + STEPS + 0.5) * 2 ** (octave - 1);
}
