// Shows both paths while the demo runs: lines rewritten in place on a terminal, one line a second elsewhere.

/** One way of traffic: how many requests went out, and how many rightful answers came back. */
export interface Way {
  /** "user" travels through the handler, "kernel" through the kernel's stack. */
  readonly path: "user" | "kernel";
  readonly words: string;
  sent: number;
  answered: number;
}

const grouped = (number: number): string => number.toString().replace(/\B(?=(\d{3})+$)/g, ",");

function bar(rate: number, most: number): string {
  return "#".repeat(most === 0 ? 0 : Math.ceil((rate / most) * 20)).padEnd(20, ".");
}

/** The moving picture. */
export class Screen {
  private drawn = 0;
  private before: readonly number[] = [];
  private peaks: number[] = [];

  /** @param live Whether lines can be rewritten. */
  constructor(
    private readonly write: (text: string) => void,
    private readonly live: boolean,
  ) {}

  /** Milliseconds between two pictures. */
  get pace(): number {
    return this.live ? 500 : 1000;
  }

  /** A line that stays. */
  say(text: string): void {
    this.drawn = 0;
    this.write(`${text}\n`);
  }

  /** Shows how many answers each way had in the `seconds` since the last call. */
  show(elapsed: number, seconds: number, ways: readonly Way[]): void {
    const rates = ways.map((way, n) => Math.max(0, way.answered - (this.before[n] ?? 0)) / seconds);
    this.before = ways.map((way) => way.answered);
    this.peaks = rates.map((rate, n) => Math.max(rate, this.peaks[n] ?? 0));
    if (!this.live) {
      const words = ways.map((way, n) => `${way.words} ${grouped(Math.round(rates[n]!))}/s`);
      this.write(`${elapsed.toFixed(0).padStart(3)} s  ${words.join("   ")}\n`);
      return;
    }
    const lines = ways.map((way, n) => {
      const rate = grouped(Math.round(rates[n]!)).padStart(8);
      return `  ${way.path.padEnd(6)}  ${way.words.padEnd(20)} [${bar(rates[n]!, this.peaks[n]!)}] ${rate} answers/s`;
    });
    const up = this.drawn > 0 ? `\x1b[${this.drawn}A` : "";
    this.write(up + [`  ${elapsed.toFixed(0)} s`, ...lines].map((line) => `\x1b[2K${line}\n`).join(""));
    this.drawn = lines.length + 1;
  }

  /** The table at the end. */
  table(ways: readonly Way[]): void {
    const rows = [
      ["path", "traffic", "sent", "answered", "unanswered"],
      ...ways.map((way) => [
        way.path,
        way.words,
        grouped(way.sent),
        grouped(way.answered),
        grouped(way.sent - way.answered),
      ]),
    ];
    const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
    this.say("");
    for (const row of rows) {
      const cells = row.map((cell, n) => (n < 2 ? cell.padEnd(widths[n]!) : cell.padStart(widths[n]!)));
      this.say(`  ${cells.join("   ")}`);
    }
    this.say("");
  }
}
