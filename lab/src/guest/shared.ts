// For tests: one booted guest a machine, shared by the test files that need the same, one at a time.

import { bootMachine } from "./session.js";
import type { Guest } from "./guest.js";
import { DEFAULT_MACHINE, machineKey, parseNics, type Machine } from "./machine.js";

/** What a test file needs of a machine; `nics` as on the command line. */
export interface WantedMachine extends Partial<Omit<Machine, "nics">> {
  readonly nics?: string | Machine["nics"];
}

/** Longest time that a boot takes on a busy machine with two processors, in ms: the limit of a `beforeAll`. */
export const BOOT_LIMIT = 480_000;

interface Shared {
  readonly key: string;
  readonly guest: Promise<Guest>;
}

/** Vitest may load this module anew for each test file; the process stays, and so does what is kept here. */
const place = globalThis as { bifurcateGuest?: Shared | undefined; bifurcateGuestUp?: Guest };

/** The machine in full. */
export function completeMachine(wanted: WantedMachine): Machine {
  const { nics = [], ...rest } = wanted;
  return { ...DEFAULT_MACHINE, ...rest, nics: typeof nics === "string" ? parseNics(nics) : nics };
}

/**
 * The guest of a machine: the one that is up, when it is the same machine and still takes commands, else a new one,
 * and the other is ended. Test files are sorted by machine (vitest.config.ts), so that each boots once. A test leaves
 * the guest as it found it, as it would leave this machine.
 * @throws BifurcateError what bootMachine() throws.
 */
export async function sharedGuest(wanted: WantedMachine): Promise<Guest> {
  const machine = completeMachine(wanted);
  const key = machineKey(machine);
  const before = place.bifurcateGuest;
  if (before?.key === key) {
    const guest = await before.guest.catch(() => undefined);
    if (guest?.alive) return guest;
  }
  await endSharedGuest();
  const began = Date.now();
  console.log(`guest: booting ${key}`);
  const guest = bootMachine(machine, (text) => console.log(`guest: ${text}`));
  place.bifurcateGuest = { key, guest };
  // QEMU ends with this process; what stands in the temporary folder does not.
  if (place.bifurcateGuestUp === undefined) process.once("exit", () => place.bifurcateGuestUp?.forget());
  place.bifurcateGuestUp = await guest;
  console.log(`guest: up after ${((Date.now() - began) / 1000).toFixed(1)} s`);
  return guest;
}

/** Ends the shared guest, e.g. before a test that boots one itself. */
export async function endSharedGuest(): Promise<void> {
  const before = place.bifurcateGuest;
  place.bifurcateGuest = undefined;
  await before?.guest.then((guest) => guest.close()).catch(() => undefined);
}
