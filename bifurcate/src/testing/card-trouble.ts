// Runs in the lab's guest: cards that should not be taken, that somebody has, and owners that die at the worst moment.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
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

/** Bus Master Enable of the Command register (PCI 3.0, 6.2.2). */
const BUS_MASTER = 1 << 2;

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
  return (readFileSync(`/sys/bus/pci/devices/${address}/config`).readUInt16LE(4) & BUS_MASTER) !== 0;
}

/** A process that polls the card. */
async function owner(address: string, via: Mechanism): Promise<ChildProcess> {
  const spec = `pci:${address},via=${via},noMemoryProtection=yes,ringSize=64,frames=512`;
  const child = spawn("bifurcate", ["open", spec, "--do", "reflect", "--json"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.once("exit", (status) => reject(new Error(`the owner ended with ${status}`)));
  });
  return child;
}

/** Kills the owner while frames arrive; true when the card is quiet soon after. */
async function killUnderTraffic(card: TroubleCard, child: ChildProcess): Promise<boolean> {
  const flood = spawn("ip", ["netns", "exec", card.netns, "ping", "-q", "-f", "-c", "2000", card.target], {
    stdio: "ignore",
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
  flood.kill("SIGKILL");
  for (let look = 0; look < 100 && masters(card.address); look++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  return !masters(card.address);
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
    const quiet = await killUnderTraffic(card, child);
    await giveCard(address);
    results[via] = {
      busy: busy.code,
      named: busy.why.includes(`pid ${child.pid}`),
      again: again.code,
      quiet,
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
