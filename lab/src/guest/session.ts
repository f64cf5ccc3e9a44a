// One command, or a shell, in a guest of its own, on this process's stdin, stdout and stderr.

import { constants } from "node:os";
import { BifurcateError } from "@bifurcate/control/errors";
import { needNamespaceRights } from "../tools.js";
import type { Say } from "./cache.js";
import { Guest, type BootOptions } from "./guest.js";
import type { GuestProcess } from "./guest-process.js";
import type { Machine } from "./machine.js";
import { provision } from "./provision.js";
import { bridgedWires } from "./qemu.js";

/** A reason to end, given from outside. */
export interface Stopper {
  readonly signal: AbortSignal;
  readonly reason: string | undefined;
  dispose(): void;
}

/** What a session needs from the command line. */
export interface SessionOptions {
  readonly say: Say;
  /**
   * Takes over the signals; called when QEMU is about to run, since before it a signal may simply end us: what is made
   * half is swept up by the next run. Called again where the boot is tried again.
   */
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

/** Wires with several queues are made of taps, in a network namespace: better known before anything is fetched. */
function needRights(machine: Machine): void {
  if (bridgedWires(machine).length > 0) needNamespaceRights("make the taps of a NIC with several queues");
}

/**
 * Boots. A guest that does not come up may have a cache to blame whose files changed without a trace: then all of it
 * is read again, what is broken is made anew, and the boot is tried once more.
 * @param provided Gives what a boot needs; `thorough`: reads all of the cache, and says when it makes something.
 */
export async function bootMending(
  provided: (say: Say, thorough: boolean) => Promise<BootOptions>,
  boot: (options: BootOptions) => Promise<Guest>,
  say: Say,
): Promise<Guest> {
  const first = await provided(say, false);
  try {
    return await boot(first);
  } catch (error) {
    if (!(error instanceof BifurcateError) || error.data?.["cacheSuspect"] !== true) throw error;
    let made = false;
    const again = await provided((text) => say(((made = true), text)), true);
    if (!made) throw error;
    return boot(again);
  }
}

/**
 * Boots a machine.
 * @throws BifurcateError E_GUEST when it does not come up, E_NOT_PRIVILEGED when its wires ask for more rights, and what
 *   provision() throws.
 */
export async function bootMachine(machine: Machine, say: Say): Promise<Guest> {
  needRights(machine);
  return bootMending(
    (tell, thorough) => provision(machine.kernel, tell, thorough),
    (options) => bootSteadily(() => Guest.boot(machine, options), say),
    say,
  );
}

/**
 * Runs a command in a new guest and ends the guest.
 * @param command Program and arguments; a shell when empty.
 * @returns The command's exit status, or 128 + N when signal N ended us.
 * @throws BifurcateError E_GUEST when the guest dies before the command ends, and what bootMachine() throws.
 */
export async function runInGuest(
  machine: Machine,
  command: readonly string[],
  options: SessionOptions,
): Promise<number> {
  needRights(machine);
  let stop: Stopper | undefined;
  let guest: Guest | undefined;
  try {
    guest = await bootMending(
      (say, thorough) => provision(machine.kernel, say, thorough),
      async (files) => {
        const watch = (stop = options.stop());
        const { signal } = watch;
        try {
          return await bootSteadily(() => Guest.boot(machine, { ...files, signal }), options.say);
        } catch (error) {
          // Nothing of the guest is left. While the cache is read again a signal may simply end us, as it did before.
          if (!signal.aborted) watch.dispose();
          throw error;
        }
      },
      options.say,
    );
    const status = await runAttached(guest, command, stop!, options.say);
    if (status !== "stopped") return status;
  } catch (error) {
    if (!stop?.signal.aborted) throw error;
  } finally {
    detach();
    await guest?.close();
    stop?.dispose();
  }
  return signalStatus(stop?.reason);
}

/** Runs the command to its end, unless it is stopped. */
async function runAttached(
  guest: Guest,
  command: readonly string[],
  { signal }: Stopper,
  say: Say,
): Promise<number | "stopped"> {
  const stopped = new Promise<"stopped">((resolve) => {
    if (signal.aborted) resolve("stopped");
    signal.addEventListener("abort", () => resolve("stopped"), { once: true });
  });
  if (signal.aborted) return stopped;
  const status = await Promise.race([attach(guest, command, say).ended, stopped]);
  if (status !== "stopped") await flushed();
  return status;
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
  stdin.on("error", () => run.stdin.end()); // a terminal that was closed
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
