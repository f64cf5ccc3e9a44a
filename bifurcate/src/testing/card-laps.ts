// Runs in the lab's guest: takes cards, echoes several laps of a large ring by our own driver, gives them back.

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { giveCard } from "@bifurcate/control/card/give";
import { takeCard } from "@bifurcate/control/card/take";
import type { Stream } from "@bifurcate/lab/traffic/datagrams";
import { open } from "bifurcate";
import type { CardRow } from "./card-rows.js";
import { echo } from "./echo.js";

const run = promisify(execFile);

/** Slots of each ring: what a user gets who names none. Their descriptors fill more than one page. */
const RING = 512;
/**
 * The datagrams to a card: nearly four laps. Without an echo for a minute the rest is lost: a handler's worker comes up
 * slowly in software emulation.
 */
const STREAM = { port: 9, count: 2_000, rate: 1_000, size: 64, quiet: 60, sources: [] } as const;

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
      const stream: Stream = { ...STREAM, host: target };
      const words = ["node", "lab/dist/traffic/datagrams.js", JSON.stringify(stream)];
      const { stdout } = await run("ip", ["netns", "exec", netns, ...words]);
      await port.stop();
      await running;
      const { invalidDescriptor, noFrames } = port.stats;
      const { sent, echoed } = JSON.parse(stdout) as { sent: number; echoed: number };
      return { driver, sent, echoed, invalidDescriptor, noFrames };
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
