// Runs in the lab's guest as a user without any right: leases a card whole, answers ping by our own driver until SIGTERM.

import { readFileSync } from "node:fs";
import { open, type BifurcateError } from "bifurcate";
import { answerPing } from "./answer-ping.js";

/** What it is told. */
export interface CardClientWords {
  /** The card's word, with via=broker. */
  readonly spec: string;
  /** Goes on driving the card when the lease is taken back, until SIGTERM. */
  readonly stubborn?: boolean;
}

const say = (line: unknown): void => void process.stdout.write(`${JSON.stringify(line)}\n`);

/** Every capability set of this process, as the kernel says it. */
function capabilities(): string[] {
  return readFileSync("/proc/self/status", "utf8")
    .split("\n")
    .filter((line) => line.startsWith("Cap"));
}

async function main(words: CardClientWords): Promise<void> {
  const ended = new Promise<void>((resolve) => process.once("SIGTERM", () => resolve()));
  const alive = setInterval(() => undefined, 1000);
  try {
    const port = await open(words.spec);
    say({ event: "open", id: port.id, pid: process.pid, uid: process.getuid?.(), caps: capabilities() });
    const running = port.run(answerPing).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    void ended.then(() => port.stop());
    const thrown = await running;
    if (thrown !== null) say({ event: "lost", code: (thrown as BifurcateError).code, why: String(thrown) });
    if (words.stubborn === true) await ended;
    const { received, sent } = port.stats;
    await port.close();
    say({ event: "end", received, sent });
  } catch (thrown) {
    say({ event: "refused", code: (thrown as BifurcateError).code, why: String(thrown) });
  } finally {
    clearInterval(alive);
  }
}

void main(JSON.parse(process.argv[2] ?? "{}") as CardClientWords);
