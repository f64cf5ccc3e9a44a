// One command, or a shell, in a guest of its own, on this process's stdin, stdout and stderr.

import { constants } from "node:os";
import { BifurcateError } from "@bifurcate/control/errors";
import type { Say } from "./cache.js";
import { Guest, type BootOptions } from "./guest.js";
import type { GuestProcess } from "./guest-process.js";
import type { Machine } from "./machine.js";
import { provision } from "./provision.js";

/** A reason to end, given from outside. */
export interface Stopper {
  readonly signal: AbortSignal;
  readonly reason: string | undefined;
  dispose(): void;
}

/** What a session needs from the command line. */
export interface SessionOptions {
  readonly say: Say;
  /** Takes over the signals; called when QEMU is about to run, since before it a signal may simply end us. */
  readonly stop: () => Stopper;
}

/** Ctrl-], as telnet(1) has it: ends the guest, whatever it does. */
const ESCAPE = 0x1d;

/** How often a guest is booted whose timer stops meanwhile. */
const BOOTS = 3;

/** Boots, and boots again when the guest's timer stops meanwhile: that is the emulation's doing. */
export async function bootSteadily(boot: () => Promise<Guest>, say: Say): Promise<Guest> {
  for (let left = BOOTS - 1; ; left -= 1) {
    try {
      return await boot();
    } catch (error) {
      const stopped = error instanceof BifurcateError && error.data?.["timerStopped"] === true;
      if (!stopped || left === 0) throw error;
      say("the guest's timer stopped while it booted, as the emulation of one may: booting it again");
    }
  }
}

/**
 * Boots. A guest that does not come up may have a cache to blame whose files changed without a trace: then all of it
 * is read again, what is broken is made anew, and the boot is tried once more.
 */
export async function bootMachine(machine: Machine, say: Say, signal?: AbortSignal): Promise<Guest> {
  const boot = (options: BootOptions): Promise<Guest> =>
    bootSteadily(() => Guest.boot(machine, { ...options, signal }), say);
  const first = await provision(machine.kernel, say);
  try {
    return await boot(first);
  } catch (error) {
    if (!(error instanceof BifurcateError) || error.code !== "E_GUEST" || signal?.aborted) throw error;
    let made = false;
    const again = await provision(machine.kernel, (text) => say(((made = true), text)), true);
    if (!made) throw error;
    return boot(again);
  }
}

/**
 * Runs a command in a new guest and ends the guest.
 * @param command Program and arguments; a shell when empty.
 * @returns The command's exit status, or 128 + N when signal N ended us.
 * @throws BifurcateError E_GUEST when the guest dies before the command ends, and what provision() throws.
 */
export async function runInGuest(
  machine: Machine,
  command: readonly string[],
  options: SessionOptions,
): Promise<number> {
  // Provisioned before signals are taken over; what is made half is swept up by the next run.
  await provision(machine.kernel, options.say);
  const stop = options.stop();
  const stopped = new Promise<"stopped">((resolve) => {
    if (stop.signal.aborted) resolve("stopped");
    stop.signal.addEventListener("abort", () => resolve("stopped"), { once: true });
  });
  const booting = bootMachine(machine, options.say, stop.signal);
  booting.catch(() => undefined); // told below, unless we were stopped
  try {
    const first = await Promise.race([booting, stopped]);
    if (first === "stopped") return signalStatus(stop.reason);
    const run = attach(first, command, options.say);
    const status = await Promise.race([run.ended, stopped]);
    if (status === "stopped") return signalStatus(stop.reason);
    await flushed();
    return status;
  } finally {
    detach();
    await booting.then((guest) => guest.close()).catch(() => undefined);
    stop.dispose();
  }
}

function signalStatus(reason: string | undefined): number {
  return 128 + (constants.signals[reason as NodeJS.Signals] ?? constants.signals.SIGPIPE);
}

/** Starts the command with this process's streams. */
function attach(guest: Guest, command: readonly string[], say: Say): GuestProcess {
  const { stdin, stdout, stderr } = process;
  const shell = command.length === 0 && stdin.isTTY;
  // A terminal of its own in the guest, as large as ours, which still puts a carriage return before each newline.
  const { rows, columns } = stdout;
  const login = `stty rows ${rows || 24} cols ${columns || 80} -onlcr; exec bash -l`;
  const argv = shell ? ["script", "-qec", login, "/dev/null"] : command.length === 0 ? ["bash"] : command;
  if (shell) say("a shell in the guest; exit or Ctrl-] ends it");
  const run = guest.start(argv, shell ? { env: { TERM: process.env["TERM"] ?? "linux" } } : {});
  run.stdout.pipe(stdout, { end: false });
  run.stderr.pipe(stderr, { end: false });
  if (shell) stdin.setRawMode(true);
  stdin.on("data", (bytes: Buffer) => {
    if (shell && bytes.includes(ESCAPE)) process.kill(process.pid, "SIGTERM");
    else if (!run.stdin.write(bytes)) {
      stdin.pause();
      run.stdin.once("drain", () => stdin.resume());
    }
  });
  stdin.on("end", () => run.stdin.end());
  return run;
}

/** Gives the terminal back and stops reading stdin, which would keep this process. */
function detach(): void {
  const { stdin } = process;
  if (stdin.isTTY) stdin.setRawMode(false);
  stdin.removeAllListeners("data");
  stdin.destroy();
}

/** Waits until what the command said has been written. */
async function flushed(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  for (const stream of [process.stdout, process.stderr]) {
    await new Promise<void>((resolve) => void stream.write("", () => resolve()));
  }
}
