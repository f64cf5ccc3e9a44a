// Runs in the lab's guest: takes cards by each mechanism, answers ping by our own driver, gives them back.

import { execFile, execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { giveCard } from "@bifurcate/control/card/give";
import type { Mechanism } from "@bifurcate/control/card/mechanism";
import { takeCard } from "@bifurcate/control/card/take";
import { BifurcateError, open } from "bifurcate";
import { answerPing } from "./answer-ping.js";
import { countAnswers } from "./echo-requests.js";

const run = promisify(execFile);

/** One card by one mechanism. */
export interface CardRow {
  readonly driver: string;
  readonly via: Mechanism;
  readonly address: string;
  /** The interface that the kernel makes of it; null for a virtual function without one. */
  readonly interface: string | null;
  /** The far end's namespace, and the address that is pinged from there. */
  readonly netns: string;
  readonly target: string;
  /** An address of the kernel's that answers too while our driver runs: that of the card of a virtual function. */
  readonly beside?: string;
  /** Sleep by interrupts too. */
  readonly interrupts: boolean;
  /** More of the card's word, e.g. ",packed=yes". */
  readonly keys?: string;
}

/** What was seen of it. */
export interface CardResult {
  readonly driver: string;
  readonly via: Mechanism;
  /** The kernel driver that it was bound to. */
  readonly bound: string | null;
  /** Echo requests answered through our driver, of three. */
  readonly polled: number;
  /** Echo requests that the kernel answered beside it. */
  readonly beside: number | null;
  /** The same while the port slept until an interrupt came, and how many came; null where not tried. */
  readonly slept: { readonly answered: number; readonly interrupts: number } | null;
  /** The code by which the card was refused to sleep, where it is not to; null where it is, or was not refused. */
  readonly refused: string | null;
  /** Driver, name, MTU, addresses and routes are as before. */
  readonly given: boolean;
  /** What went wrong; null when nothing did. */
  readonly error: string | null;
}

/** How many of three echo requests were answered, up to the first that was not. */
async function ping(netns: string, target: string): Promise<number> {
  return Number((await run("sh", ["-c", countAnswers(target, netns)])).stdout);
}

/** Interrupts that VFIO and UIO have handed on. */
function interrupts(): number {
  return readFileSync("/proc/interrupts", "latin1")
    .split("\n")
    .filter((line) => /vfio|uio/.test(line))
    .flatMap((line) => line.trim().split(/\s+/).slice(1, 3).map(Number))
    .reduce((sum, each) => sum + (each || 0), 0);
}

/** What is to be as before: the interface without what changes by itself. */
export function standing(name: string | null): string {
  if (name === null) return "";
  const said = (...words: string[]): string => execFileSync("ip", words, { encoding: "utf8" });
  const link = said("-o", "link", "show", "dev", name);
  return [
    `${/mtu \d+/.exec(link)?.[0]} ${/[<,]UP[,>]/.test(link) ? "up" : "down"}`,
    said("-o", "-4", "addr", "show", "dev", name).replace(/^\d+: /gm, ""),
    said("-o", "-6", "addr", "show", "dev", name, "scope", "global").replace(/^\d+: /gm, ""),
    said("-4", "route", "show", "dev", name).replace(/ linkdown/g, ""),
  ].join("\n");
}

function wordOf(row: CardRow, keys: string): string {
  const said = row.via === "vfio" || row.via === "iommufd" ? "" : ",noMemoryProtection=yes";
  return `pci:${row.address},via=${row.via}${said},ringSize=64,frames=512${row.keys ?? ""}${keys}`;
}

/** The code by which opening the card is refused; null when it is not. */
async function refusal(row: CardRow, keys: string): Promise<string | null> {
  try {
    await (await open(wordOf(row, keys))).close();
    return null;
  } catch (thrown) {
    return thrown instanceof BifurcateError ? thrown.code : String(thrown);
  }
}

/** Echo requests answered by a port that is opened and closed for it, and the interrupts that came meanwhile. */
async function answer(row: CardRow, keys: string) {
  const port = await open(wordOf(row, keys));
  try {
    const before = interrupts();
    const running = port.run(answerPing);
    const answered = await ping(row.netns, row.target);
    const beside = row.beside === undefined ? null : await ping(row.netns, row.beside);
    const came = interrupts() - before;
    await port.stop();
    await running;
    return { answered, beside, interrupts: came };
  } finally {
    await port.close();
  }
}

/** Takes, answers, gives back. */
export async function tryCard(row: CardRow): Promise<CardResult> {
  const { address, driver, via } = row;
  const result = {
    driver,
    via,
    bound: null as string | null,
    polled: 0,
    beside: null as number | null,
    slept: null as CardResult["slept"],
    refused: null as string | null,
  };
  const before = standing(row.interface);
  let given = false;
  let error: string | null = null;
  try {
    result.bound = takeCard({ address, via, force: false, noMemoryProtection: true }).driver;
    const polled = await answer(row, "");
    [result.polled, result.beside] = [polled.answered, polled.beside];
    if (row.interrupts) {
      const { answered, interrupts } = await answer(row, ",interrupts=yes");
      result.slept = { answered, interrupts };
    } else {
      result.refused = await refusal(row, ",interrupts=yes");
    }
  } catch (thrown) {
    error = String(thrown);
  }
  try {
    await giveCard(address);
    given = standing(row.interface) === before;
    if (!given) error ??= `before:\n${before}\nafter:\n${standing(row.interface)}`;
  } catch (thrown) {
    error ??= String(thrown);
  }
  return { ...result, given, error };
}

async function main(rows: readonly CardRow[]): Promise<void> {
  for (const row of rows) process.stdout.write(`${JSON.stringify(await tryCard(row))}\n`);
}

// Without `await` out here, which a plain script has not: see guest-program.ts.
void main(JSON.parse(process.argv[2] ?? "[]") as CardRow[]);
