// Runs in the lab's guest: takes cards, echoes several laps of a large ring by our own driver, gives them back.

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { giveCard } from "@bifurcate/control/card/give";
import { takeCard } from "@bifurcate/control/card/take";
import { open } from "bifurcate";
import type { CardRow } from "./card-rows.js";
import { echo } from "./echo.js";

const run = promisify(execFile);

/** Slots of each ring: what a user gets who names none. Their descriptors fill more than one page. */
const RING = 512;
/** Datagrams to a card: nearly four laps. */
const COUNT = 2_000;
/** Datagrams a second, and bytes of each. */
const RATE = 1_000;
const SIZE = 64;
/** Seconds without an echo after which the rest is lost: a handler's worker comes up slowly in software emulation. */
const QUIET = 60;

/** What was seen of one card. */
export interface CardLaps {
  readonly driver: string;
  /** Datagrams that the far end sent, and that came back to it. */
  readonly sent: number;
  readonly echoed: number;
  /** Descriptors of the card's that made no sense. */
  readonly invalidDescriptor: number;
  readonly noFrames: number;
}

async function lap(row: CardRow): Promise<CardLaps> {
  const { address, driver, via, netns, target } = row;
  takeCard({ address, via, force: false, noMemoryProtection: false });
  try {
    const port = await open(`pci:${address},via=${via},ringSize=${RING}`);
    try {
      const running = port.run(echo);
      const words = ["lab/dist/traffic/datagrams.js", target, 9, COUNT, RATE, SIZE, QUIET].map(String);
      const { stdout } = await run("ip", ["netns", "exec", netns, "node", ...words]);
      await port.stop();
      await running;
      const { invalidDescriptor, noFrames } = port.stats;
      const seen = JSON.parse(stdout) as { sent: number; echoed: number };
      return { driver, ...seen, invalidDescriptor, noFrames };
    } finally {
      await port.close();
    }
  } finally {
    await giveCard(address);
  }
}

async function main(rows: readonly CardRow[]): Promise<void> {
  for (const row of rows) process.stdout.write(`${JSON.stringify(await lap(row))}\n`);
}

// Without `await` out here, which a plain script has not: see guest-program.ts.
void main(JSON.parse(process.argv[2] ?? "[]") as CardRow[]);
