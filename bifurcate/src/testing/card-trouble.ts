// Runs in the lab's guest: cards that should not be taken, that somebody has, and owners that die at the worst moment.

import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { BifurcateError } from "@bifurcate/control/errors";
import { giveCard } from "@bifurcate/control/card/give";
import type { Mechanism } from "@bifurcate/control/card/mechanism";
import { takeCard } from "@bifurcate/control/card/take";

/** The card that it is tried on. */
export interface TroubleCard {
  readonly address: string;
  readonly interface: string;
  /** A router on the interface's network. */
  readonly router: string;
  /** The far end's namespace, and the card's address there. */
  readonly netns: string;
  readonly target: string;
  /** A PCI function that is no network card. */
  readonly disk: string;
}

/** Bus Master Enable of the Command register, and where that stands (PCI 3.0, 6.2.2). */
const BUS_MASTER = 1 << 2;
const COMMAND = 4;

/** Looks, and the time between two, until something that the kernel or the guardian does has happened: a minute. */
const LOOKS = 3000;
const LOOK_MS = 20;

const said = (command: string, ...words: string[]): string =>
  execFileSync(command, words, { encoding: "utf8" });

async function code(work: () => unknown): Promise<{ code: string; why: string }> {
  try {
    await work();
    return { code: "none", why: "" };
  } catch (thrown) {
    return thrown instanceof BifurcateError
      ? { code: thrown.code, why: thrown.why }
      : { code: "?", why: String(thrown) };
  }
}

function take(address: string, via: Mechanism = "vfio", force = false, noMemoryProtection = false) {
  return takeCard({ address, via, force, noMemoryProtection });
}

function masters(address: string): boolean {
  return (readFileSync(`/sys/bus/pci/devices/${address}/config`).readUInt16LE(COMMAND) & BUS_MASTER) !== 0;
}

/** The words of a command that opens the card; `keys`: more of its word. */
function opening(address: string, via: Mechanism, keys = ""): string[] {
  const spec = `pci:${address},via=${via},noMemoryProtection=yes,ringSize=64,frames=512${keys}`;
  return ["open", spec, "--do", "reflect", "--json"];
}

/** A process that polls the card. */
async function owner(address: string, via: Mechanism): Promise<ChildProcess> {
  const child = spawn("bifurcate", opening(address, via), {
    stdio: ["ignore", "pipe", "pipe"],
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.once("exit", (status) => reject(new Error(`the owner ended with ${status}`)));
  });
  return child;
}

/** The code by which a process is refused that opens a card which another has open. */
function second(address: string, via: Mechanism): string {
  const words = [...opening(address, via), "--seconds", "1"];
  const { status, stdout, stderr } = spawnSync("bifurcate", words, { encoding: "utf8" });
  return /E_[A-Z_]+/.exec(stderr + stdout)?.[0] ?? `status ${status}`;
}

/** What a port says that it has, of a card with fewer interrupts than queues that are to sleep. */
function fewInterrupts(address: string, via: Mechanism): unknown {
  const text = said("bifurcate", ...opening(address, via, ",queues=2,interrupts=yes"), "--seconds", "1");
  const open = JSON.parse(text.split("\n")[0]!) as { path: { obtained: unknown } };
  return open.path.obtained;
}

/** Lets a card reach memory by itself, whoever has it. */
function letMaster(address: string): void {
  const file = `/sys/bus/pci/devices/${address}/config`;
  const command = Buffer.alloc(2);
  command.writeUInt16LE(readFileSync(file).readUInt16LE(COMMAND) | BUS_MASTER);
  const config = openSync(file, "r+");
  writeSync(config, command, 0, command.length, COMMAND);
  closeSync(config);
}

function freeHugePages(): number {
  return Number(/^HugePages_Free:\s+(\d+)$/m.exec(readFileSync("/proc/meminfo", "latin1"))![1]);
}

/** Whether it comes true soon. */
async function soon(condition: () => boolean): Promise<boolean> {
  for (let look = 0; look < LOOKS && !condition(); look++)
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  return condition();
}

/** The process that holds an owner's memory (linux/src/dma/guardian.rs). */
function guardianOf(owner: number): number {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    let status = "";
    try {
      status = readFileSync(`/proc/${pid}/status`, "latin1");
    } catch {
      // It has ended meanwhile.
    }
    if (/^Name:\tbf-dma-guard$/m.test(status) && status.includes(`\nPPid:\t${owner}\n`)) return Number(pid);
  }
  throw new Error(`no guardian holds the memory of ${owner}`);
}

/** Kills the owner while frames arrive; when this resolves the kernel has closed all that it had. */
async function killUnderTraffic(card: TroubleCard, child: ChildProcess): Promise<void> {
  const flood = spawn("ip", ["netns", "exec", card.netns, "ping", "-q", "-f", "-c", "2000", card.target], {
    stdio: "ignore",
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
  flood.kill("SIGKILL");
}

/**
 * Kills the owner of a card without memory protection while its guardian stands still: `held` when none of its huge
 * pages is free then. The kernel's UIO driver has switched Bus Master off by itself; it is switched on again, so that
 * `quiet` tells of the guardian, which goes on: the card is off when the pages are free.
 * @param before Free huge pages while nobody has the card.
 */
async function killGuarded(card: TroubleCard, child: ChildProcess, before: number) {
  const guardian = guardianOf(child.pid!);
  const during = freeHugePages();
  process.kill(guardian, "SIGSTOP");
  let held = during < before;
  try {
    await killUnderTraffic(card, child);
    held &&= freeHugePages() === during;
    // Never while what the card may still write to is somebody else's already.
    if (held) {
      letMaster(card.address);
      held = masters(card.address) && freeHugePages() === during;
    }
  } finally {
    process.kill(guardian, "SIGCONT");
  }
  const freed = await soon(() => freeHugePages() === before);
  return { held, quiet: freed && !masters(card.address) };
}

/** Waits for a process to end; gives its status and what it said on stderr. */
function ending(child: ChildProcess): Promise<{ status: number | null; said: string }> {
  let text = "";
  child.stderr?.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  return new Promise((resolve) => child.once("close", (status) => resolve({ status, said: text })));
}

/** Pulls the card out under its owner, as sysfs can, and puts it in again. */
async function unplug(card: TroubleCard, child: ChildProcess) {
  const ended = ending(child);
  // Under VFIO the kernel waits here until the owner lets go.
  const remove = spawn("sh", ["-c", `echo 1 > /sys/bus/pci/devices/${card.address}/remove`]);
  const removed = ending(remove);
  const { status, said } = await ended;
  await removed;
  const there = existsSync(`/sys/bus/pci/devices/${card.address}`);
  writeFileSync("/sys/bus/pci/rescan", "1");
  return { status, code: /E_[A-Z_]+/.exec(said)?.[0] ?? said, there };
}

/** Everything, one after another. */
export async function trouble(card: TroubleCard) {
  const { address, router } = card;
  const results: Record<string, unknown> = {};
  const standing = (): string =>
    said("ip", "-4", "route", "show", "dev", card.interface).replace(/ linkdown/g, "");

  results["noSuchCard"] = (await code(() => take("0000:7f:1f.7"))).code;
  results["noAddress"] = (await code(() => take("eth0"))).code;
  results["noNetworkCard"] = (await code(() => take(card.disk))).code;
  results["notByName"] = (await code(() => take(address, "uio_pci_generic"))).code;
  results["noModule"] = (await code(() => take(address, "igb_uio", false, true))).code;
  results["anIommuStandsBefore"] = (await code(() => take(address, "vfio-noiommu", false, true))).code;

  const pages = freeHugePages();
  said("ip", "route", "add", "default", "via", router, "dev", card.interface);
  const before = standing();
  results["defaultRoute"] = await code(() => take(address));
  results["forced"] = take(address, "vfio", true).overruled;
  results["routesBack"] = (await giveCard(address), standing() === before);
  said("ip", "route", "del", "default");

  for (const via of ["vfio", "uio_pci_generic"] as const) {
    const whole = standing();
    take(address, via, false, true);
    const child = await owner(address, via);
    const busy = await code(() => giveCard(address));
    const again = await code(() => take(address, via, false, true));
    const opened = second(address, via);
    let killed: Record<string, boolean>;
    if (via === "vfio") {
      // When its memory is free again is the kernel's to see to here, which keeps it pinned while it is mapped.
      await killUnderTraffic(card, child);
      killed = { quiet: await soon(() => !masters(address)) };
    } else killed = await killGuarded(card, child, pages);
    await giveCard(address);
    results[via] = {
      busy: busy.code,
      named: busy.why.includes(`pid ${child.pid}`),
      again: again.code,
      opened,
      ...killed,
      given: standing() === whole,
    };
  }

  for (const via of ["vfio", "uio_pci_generic"] as const) {
    const whole = standing();
    take(address, via, false, true);
    const pulled = await unplug(card, await owner(address, via));
    await giveCard(address);
    results[`unplugged by ${via}`] = { ...pulled, given: standing() === whole };
  }

  for (const via of ["vfio", "uio_pci_generic"] as const) {
    const whole = standing();
    take(address, via, false, true);
    const ended = ending(await owner(address, via));
    writeFileSync(`/sys/bus/pci/devices/${address}/reset`, "1");
    const { status, said } = await ended;
    await giveCard(address);
    results[`reset by ${via}`] = {
      status,
      code: /E_[A-Z_]+/.exec(said)?.[0] ?? said,
      given: standing() === whole,
    };
  }

  take(address, "uio_pci_generic", false, true);
  results["fewInterrupts"] = fewInterrupts(address, "uio_pci_generic");
  await giveCard(address);

  // As a crash between the two halves of binding leaves it: no driver has the card.
  const whole = standing();
  take(address);
  writeFileSync(`/sys/bus/pci/drivers/vfio-pci/unbind`, address);
  results["halfBound"] = (await giveCard(address), standing() === whole);
  return results;
}

void trouble(JSON.parse(process.argv[2] ?? "{}") as TroubleCard).then((results) =>
  process.stdout.write(`${JSON.stringify(results)}\n`),
);
