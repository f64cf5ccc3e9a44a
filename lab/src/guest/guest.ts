// A guest that is up: starts QEMU, speaks with the agent inside, runs commands there, and ends it.

import { spawn, type ChildProcess } from "node:child_process";
import { EventEmitter } from "node:events";
import { readFileSync, rmSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { BifurcateError } from "@bifurcate/control/errors";
import type { Ended } from "../tools.js";
import { Lines, type FoundPort, type ToGuest, type ToHost } from "./channel.js";
import { GuestProcess, type RunOptions } from "./guest-process.js";
import { layOut, type GuestPort, type Machine } from "./machine.js";
import { bridgedWires, qemuArguments, type BootFiles } from "./qemu.js";
import { makeOverlayFolder, makeRunFolder, withTemporaryRoom } from "./run-folder.js";
import { DYING } from "./tree.js";

/** An interface of a guest that is up. */
export type UpPort = GuestPort & FoundPort;

/** What a boot takes besides the machine. */
export interface BootOptions {
  /** QEMU and the arguments that always stand first, e.g. where its firmware is. */
  readonly qemu: readonly string[];
  readonly files: Omit<BootFiles, "console" | "control" | "project">;
  /** Writes the project as a tar archive to this file. */
  readonly packProject: (file: string) => Promise<void>;
  /** The longest that a boot may take, in seconds. */
  readonly limit?: number;
  /** Ends the boot. */
  readonly signal?: AbortSignal | undefined;
}

/** The environment of every command in the guest. */
const ENVIRONMENT = { HOME: "/root", TERM: "linux", LC_ALL: "C" };

/** Seconds that a command may take unless it is said: far more than any needs, even where emulation is starved. */
const RUN_LIMIT = 180;

/**
 * What Linux says when a processor's timer no longer interrupts (kernel/rcu/tree_stall.h). On a busy host it happens
 * now and then to the emulated one while 6.1 boots, which then goes on at a step a minute.
 */
const TIMER_STOPPED = /kthread timer wakeup didn't happen for \d+ jiffies/;
const TIMER_STOPPED_WHY = "its timer stopped while it booted";

/** Why a boot ends that its owner ends. */
const BROKEN_OFF = "its boot was broken off";

/** Lines of the console that an error shows. */
const CONSOLE_TAIL = 60;

/** Where IPv6 is off already, or /proc/sys cannot be written, it is no trouble: a guest is told more than it needs. */
function withoutIpv6(name: string): string {
  const file = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`;
  return `{ { echo 1 > ${file}; } 2> /dev/null || :; }`;
}

/** `bfNAME: port` lines of sh(1) that make taps and a bridge a wire, in QEMU's own network namespace. */
function tapScript(machine: Machine): string {
  return bridgedWires(machine)
    .flatMap((ports, wire) => [
      // No address, no IPv6, no multicast snooping: the bridge is a wire and says nothing itself.
      `ip link add bridge${wire} type bridge mcast_snooping 0 stp_state 0`,
      ...ports.flatMap(({ name, nic }) => [
        `ip tuntap add dev ${name} mode tap${(nic.queues ?? 1) > 1 ? " multi_queue" : ""}`,
        withoutIpv6(name),
        `ip link set dev ${name} mtu 9216 master bridge${wire} up`,
      ]),
      withoutIpv6(`bridge${wire}`),
      `ip link set dev bridge${wire} mtu 9216 up`,
    ])
    .join(" && ");
}

/**
 * QEMU's command as it is started: it dies with this process, and has a network namespace of its own where there are
 * taps.
 */
function qemuCommand(machine: Machine, qemu: readonly string[], rest: readonly string[]): string[] {
  const script = tapScript(machine);
  if (script === "") return [...DYING, ...qemu, ...rest];
  return [...DYING, "unshare", "--net", "--", "sh", "-c", `${script} && exec "$@"`, "sh", ...qemu, ...rest];
}

function removeAll(...folders: string[]): void {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}

/** A guest that is up. */
export class Guest {
  readonly ports: readonly UpPort[] = [];
  private readonly runs = new Map<number, GuestProcess>();
  private readonly lines = new Lines();
  private readonly events = new EventEmitter();
  private nextRun = 1;
  private over: BifurcateError | null = null;
  /** Whether broken files in the cache may be why it does not come up. */
  private cacheSuspect = true;
  private closing = false;

  private constructor(
    readonly machine: Machine,
    private readonly folder: string,
    private readonly overlays: string,
    private readonly child: ChildProcess,
    private readonly stderr: () => string,
  ) {
    this.gone = new Promise((resolve) => {
      child.on("error", (error) => {
        this.cacheSuspect = false;
        resolve(this.fail(`QEMU cannot be started: ${error.message}`));
      });
      child.on("close", (status, signal) => {
        const how = signal === null ? `with status ${String(status)}` : `by ${signal}`;
        // QEMU, or what was to start it, has said why; 127 is its loader's, for a program that it cannot load.
        if (signal === null && status !== 0 && status !== 127) this.cacheSuspect = false;
        resolve(this.fail(/Kernel panic/.test(this.console()) ? "its kernel panicked" : `QEMU ended ${how}`));
      });
    });
  }

  /** Resolves when QEMU has ended, for whatever reason. */
  readonly gone: Promise<void>;
  private socket: Socket | undefined;

  /**
   * Boots a guest and waits until it takes commands.
   * @throws BifurcateError E_GUEST when it does not come up; the error shows the console, and its data say whether
   *   the cache may be to blame. Or what packProject() throws.
   */
  static async boot(machine: Machine, options: BootOptions): Promise<Guest> {
    const folder = await withTemporaryRoom(() => makeRunFolder());
    // QEMU removes the names of its files there at once, unless it is killed before.
    const overlays = makeOverlayFolder(folder);
    const files: BootFiles = {
      ...options.files,
      console: path.join(folder, "console"),
      control: path.join(folder, "control"),
      project: path.join(folder, "project.tar"),
    };
    let guest: Guest | undefined;
    try {
      await withTemporaryRoom(() => options.packProject(files.project));
      const [command, ...args] = qemuCommand(machine, options.qemu, qemuArguments(machine, files));
      options.signal?.throwIfAborted();
      // A session of its own: Ctrl-C at a terminal is for us, who then end it.
      const child = spawn(command!, args, {
        stdio: ["ignore", "pipe", "pipe"],
        detached: true,
        env: { ...process.env, TMPDIR: overlays },
      });
      let stderr = "";
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text: string) => (stderr += text));
      }
      guest = new Guest(machine, folder, overlays, child, () => stderr);
      const booting = guest;
      const stop = (): void => void booting.fail(BROKEN_OFF);
      options.signal?.addEventListener("abort", stop, { once: true });
      try {
        await guest.comeUp(files.control, options.limit ?? 240);
      } finally {
        options.signal?.removeEventListener("abort", stop);
      }
      return guest;
    } catch (error) {
      await guest?.close();
      removeAll(folder, overlays);
      throw error;
    }
  }

  private async comeUp(control: string, limit: number): Promise<void> {
    const timer = setTimeout(() => void this.fail(`it took no command within ${limit} s`), limit * 1000);
    const look = setInterval(() => TIMER_STOPPED.test(this.console()) && this.fail(TIMER_STOPPED_WHY), 1000);
    try {
      const ready = new Promise<readonly FoundPort[]>((resolve, reject) => {
        this.events.once("ready", resolve);
        this.events.once("failed", reject);
        if (this.over !== null) reject(this.over);
      });
      ready.catch(() => undefined);
      await this.connect(control);
      const planned = layOut(this.machine.nics);
      this.send({ name: planned.map((port) => [port.mac, port.name] as const) });
      const found = await ready;
      const missing = planned.filter((port) => !found.some((each) => each.name === port.name));
      if (missing.length > 0)
        throw this.failed(`its kernel has no driver for ${missing.map((p) => p.name).join(", ")}`);
      (this as { ports: readonly UpPort[] }).ports = planned.map((port) => ({
        ...port,
        ...found.find((each) => each.name === port.name)!,
      }));
    } finally {
      clearInterval(look);
      clearTimeout(timer);
    }
  }

  /** QEMU listens a moment after it was started. */
  private async connect(control: string): Promise<void> {
    for (;;) {
      if (this.over !== null) throw this.over;
      const socket = createConnection(control);
      const error = await new Promise((resolve) =>
        socket.once("connect", () => resolve(null)).once("error", resolve),
      );
      if (error === null) {
        this.socket = socket;
        socket.on("data", (chunk) => {
          for (const message of this.lines.take(chunk)) this.hear(message as ToHost);
        });
        socket.on("error", () => undefined); // QEMU's end says more
        return;
      }
      await delay(20);
    }
  }

  private send(message: ToGuest): void {
    this.socket?.write(`${JSON.stringify(message)}\n`);
  }

  private hear(message: ToHost): void {
    if ("ready" in message) {
      this.events.emit("ready", message.ready);
      return;
    }
    const run = this.runs.get(message.run);
    if (run === undefined) return;
    if ("stdout" in message) run.heard("stdout", Buffer.from(message.stdout, "base64"));
    else if ("stderr" in message) run.heard("stderr", Buffer.from(message.stderr, "base64"));
    else if ("took" in message) run.took();
    else {
      this.runs.delete(message.run);
      run.finish(message.status);
    }
  }

  /** What the guest's console has shown so far: its kernel's messages. */
  console(): string {
    try {
      return readFileSync(path.join(this.folder, "console"), "utf8").replace(/\r/g, "");
    } catch {
      return "";
    }
  }

  private failed(why: string): BifurcateError {
    const tail = this.console().trimEnd().split("\n").slice(-CONSOLE_TAIL).join("\n");
    const said = [this.stderr().trim(), tail && `the guest's console:\n${tail}`].filter(Boolean).join("\n");
    return new BifurcateError("E_GUEST", {
      what: `run a guest with the ${this.machine.kernel} kernel`,
      why: said === "" ? why : `${why}\n${said}`,
      data: {
        console: tail,
        timerStopped: why === TIMER_STOPPED_WHY,
        cacheSuspect: this.cacheSuspect && why !== BROKEN_OFF,
      },
    });
  }

  /** Ends everything that waits for the guest, once. */
  private fail(why: string): void {
    if (this.over !== null) return;
    this.over = this.failed(why);
    this.child.kill("SIGKILL");
    if (!this.closing) this.events.emit("failed", this.over);
    for (const run of this.runs.values()) run.fail(this.over);
    this.runs.clear();
  }

  /** Starts a command; `stdout`, `stderr` and `stdin` are streams, as of a child process. */
  start(argv: readonly string[], options: RunOptions = {}): GuestProcess {
    const id = this.nextRun++;
    const run = new GuestProcess((message) => this.send({ run: id, ...message } as ToGuest));
    if (this.over !== null) {
      run.fail(this.over);
      return run;
    }
    this.runs.set(id, run);
    this.send({ run: id, argv, cwd: options.cwd ?? "/bifurcate", env: { ...ENVIRONMENT, ...options.env } });
    if (options.limit !== undefined) {
      const seconds = options.limit;
      const timer = setTimeout(
        () => this.fail(`${argv.join(" ")} did not end within ${seconds} s`),
        seconds * 1000,
      );
      run.ended.then(
        () => clearTimeout(timer),
        () => clearTimeout(timer),
      );
    }
    return run;
  }

  /**
   * Runs a command to its end. A status other than 0 is no error here.
   * @throws BifurcateError E_GUEST when the guest dies, or when the limit (RUN_LIMIT unless given) passes: the guest
   *   is then ended, and the error shows its console.
   */
  async run(argv: readonly string[], options: RunOptions = {}): Promise<Ended> {
    const run = this.start(argv, { limit: RUN_LIMIT, ...options });
    const said = { stdout: "", stderr: "" };
    run.stdout.setEncoding("utf8").on("data", (text: string) => (said.stdout += text));
    run.stderr.setEncoding("utf8").on("data", (text: string) => (said.stderr += text));
    run.stdin.end(options.input ?? "");
    return { status: await run.ended, ...said };
  }

  /** Whether it still takes commands. */
  get alive(): boolean {
    return this.over === null;
  }

  /** Removes its files, as the last thing that a process does which did not close it. */
  forget(): void {
    this.child.kill("SIGKILL");
    removeAll(this.folder, this.overlays);
  }

  /** Ends QEMU. Nothing is written back: the guest's disks are thrown away. */
  async close(): Promise<void> {
    this.closing = true;
    this.child.kill("SIGKILL");
    await this.gone;
    this.socket?.destroy();
    removeAll(this.folder, this.overlays);
  }
}
