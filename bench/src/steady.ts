// Two receivers that both stay up, sent to in turns of a quarter of a second: pairs so short that what the machine does
// meanwhile, and what one start of a process is like against another, meets both sides alike.
import { setTimeout as sleep } from "node:timers/promises";
import type { LabCard } from "@bifurcate/lab";
import { Child } from "./child.js";
import type { Sample } from "./rows.js";
import { sender } from "./wire.js";

/** How long a side is measured for at a time, ms, and how long it is sent to before. */
const WINDOW_MS = 250;
const SETTLE_MS = 60;

/** One side: its card, and the command that receives there. */
export interface Side {
  readonly card: LabCard;
  readonly command: readonly string[];
}

interface Look {
  readonly look: number;
  readonly packets: number;
  readonly at: number;
}

/** A receiver that is up, with a sender that rests until it is wanted. */
class Pair {
  private looks = 0;

  private constructor(
    private readonly receiver: Child,
    private readonly sender: Child,
  ) {}

  static async start({ card, command }: Side, examples: string, seconds: number): Promise<Pair> {
    const [program, ...args] = command;
    const receiver = new Child(program!, args);
    await receiver.saw(/"ready":true/);
    const pair = new Pair(receiver, sender({ examples, card, seconds }));
    // Its socket is bound, and what is there once only is over.
    await sleep(1000);
    process.kill(pair.sender.pid, "SIGSTOP");
    return pair;
  }

  /** Packets a second of one window. */
  async window(): Promise<Sample> {
    process.kill(this.sender.pid, "SIGCONT");
    await sleep(SETTLE_MS);
    const from = await this.look();
    await sleep(WINDOW_MS);
    const to = await this.look();
    process.kill(this.sender.pid, "SIGSTOP");
    return { value: ((to.packets - from.packets) * 1e9) / (to.at - from.at), command: this.receiver.line };
  }

  private async look(): Promise<Look> {
    const number = ++this.looks;
    this.receiver.type(`${number}`);
    await this.receiver.saw(new RegExp(`"look":${number},.*\\n`));
    const line = this.receiver.output.split("\n").find((each) => each.includes(`"look":${number},`));
    return JSON.parse(line!) as Look;
  }

  async end(): Promise<void> {
    process.kill(this.sender.pid, "SIGCONT");
    await this.sender.end();
    this.receiver.close();
    await this.receiver.ended;
  }
}

/**
 * Pairs of windows of both sides, every second pair beginning with the peer. Both are started anew for each run, since
 * where a process finds its memory, and on which of the machine's threads it runs, stays with it.
 */
export async function steadily(
  { runs, seconds, examples }: { readonly runs: number; readonly seconds: number; readonly examples: string },
  ours: Side,
  peer: Side,
  progress: (text: string) => void,
): Promise<{ ours: Sample[]; peer: Sample[] }> {
  const result: { ours: Sample[]; peer: Sample[] } = { ours: [], peer: [] };
  const windows = Math.ceil((seconds * 1000) / WINDOW_MS);
  for (let run = 0; run < runs; run += 1) {
    progress(`run ${run + 1} of ${runs}`);
    const both: Pair[] = [];
    try {
      for (const side of [ours, peer]) both.push(await Pair.start(side, examples, 10 + 4 * seconds));
      for (let at = 0; at < windows; at += 1) {
        const order = (run + at) % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const);
        for (const side of order) {
          (side === 0 ? result.ours : result.peer).push(await both[side]!.window());
        }
      }
    } finally {
      for (const pair of both) await pair.end();
    }
  }
  return result;
}
