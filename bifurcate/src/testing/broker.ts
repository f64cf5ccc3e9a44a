// For tests: a broker of the built command in a namespace, and clients of it that have no rights at all.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const bin = (name: string): string => fileURLToPath(new URL(`../../bin/${name}`, import.meta.url));
/** The smallest lease with every right, of the card that a BrokerPlace has. */
export const REQUEST = {
  device: "card0",
  flows: ["udp dst port 7777"],
  mechanism: "auto",
  transmit: "own",
  pass: true,
  queues: 1,
  frames: 256,
  frameSize: 2048,
  ringSize: 64,
  zeroCopy: "prefer",
  busyPoll: false,
  pages: "ordinary",
} as const;

/** The port to which HANDLER turns a datagram before it passes it, when asked to. */
export const ELSEWHERE = 7009;

/** A handler that answers, as it should and not as it should: which, the payload's first byte says. */
export const HANDLER = `
  export function handle(batch) {
    const { view } = batch;
    while (batch.next()) {
      const at = batch.at;
      if (batch.size < 43 || view.getUint16(at + 12) !== 0x0800 || view.getUint8(at + 14) !== 0x45) continue;
      const what = String.fromCharCode(view.getUint8(at + 42));
      if (what === "p") { batch.pass(); continue; }
      // Not of the flow any more; without a checksum, so that nothing but the filter keeps it from a socket.
      if (what === "e") { view.setUint16(at + 36, ${ELSEWHERE}); view.setUint16(at + 40, 0); batch.pass(); continue; }
      for (const [a, b, words] of [[0, 6, 3], [26, 30, 2], [34, 36, 1]]) {
        for (let i = 0; i < words; i++) {
          const word = view.getUint16(at + a + 2 * i);
          view.setUint16(at + a + 2 * i, view.getUint16(at + b + 2 * i));
          view.setUint16(at + b + 2 * i, word);
        }
      }
      view.setUint16(at + 40, 0);
      if (what === "m") view.setUint8(at + 11, view.getUint8(at + 11) ^ 1);
      if (what === "f") view.setUint16(at + 20, 0x2000);
      if (what === "s") { view.setUint16(at + 34, 9); }
      batch.send();
    }
  }`;

/** How long is waited for what is to come to be so, ms: a busy machine may keep any process waiting for seconds. */
const PATIENCE_MS = 100_000;

/** The user of the clients: nobody. */
export const NOBODY = 65_534;
/** A user beside nobody, who has leases too. */
export const OTHER = 65_533;

/** One line of the audit log. */
export interface AuditLine {
  readonly event: string;
  readonly outcome: string;
  readonly [more: string]: unknown;
}

/** A command that runs until it is ended. */
export class Running {
  readonly lines: string[] = [];
  stderr = "";
  readonly ended: Promise<number | null>;
  private readonly waiting = new Set<() => void>();

  constructor(
    readonly child: ChildProcess,
    private readonly what: string,
  ) {
    createInterface({ input: child.stdout! }).on("line", (line) => {
      this.lines.push(line);
      this.wake();
    });
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
      this.wake();
    });
    this.ended = new Promise((resolve) =>
      child.once("close", (status) => {
        resolve(status);
        this.wake();
      }),
    );
  }

  private wake(): void {
    for (const each of this.waiting) each();
    this.waiting.clear();
  }

  /** Waits until `found` gives something; rejects with what the command said when it ends before. */
  async until<T>(found: () => T | undefined): Promise<T> {
    for (;;) {
      const value = found();
      if (value !== undefined) return value;
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        await this.ended;
        const last = found();
        if (last !== undefined) return last;
        throw new Error(`${this.what} ended: ${this.stderr}${this.lines.join("\n")}`);
      }
      await new Promise<void>((resolve) => this.waiting.add(resolve));
    }
  }

  /** The first line that holds these words. */
  line(words: string): Promise<string> {
    return this.until(() => this.lines.find((each) => each.includes(words)));
  }

  /** Sends a signal and waits for the end. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> {
    this.child.kill(signal);
    return this.ended;
  }
}

/** A folder with a BPF file system, a policy, and brokers one after another. */
export class BrokerPlace {
  readonly folder = mkdtempSync(path.join(tmpdir(), "bifurcate-broker-"));
  readonly socket = path.join(this.folder, "broker.sock");
  readonly policy = path.join(this.folder, "policy");
  readonly audit = path.join(this.folder, "audit.jsonl");
  readonly state = path.join(this.folder, "state");
  readonly bpffs = path.join(this.folder, "bpf", "bifurcate");
  private readonly running = new Set<Running>();

  /** @param netns The namespace that brokers serve. */
  constructor(readonly netns: string) {
    // Clients reach the socket; nothing else in the folder is theirs.
    chmodSync(this.folder, 0o755);
    mkdirSync(path.join(this.folder, "bpf"));
    execFileSync("mount", ["-t", "bpf", "bpf", path.join(this.folder, "bpf")]);
  }

  write(policy: string): void {
    writeFileSync(this.policy, policy, { mode: 0o644 });
  }

  get options(): string[] {
    const { socket, policy, audit, state, bpffs } = this;
    return ["--policy", policy, "--socket", socket, "--state", state, "--bpffs", bpffs, "--audit", audit];
  }

  /** Starts a broker and waits until it serves. */
  start(...prefix: string[]): Promise<Running> {
    return this.serving([...prefix, process.execPath, ...this.daemon()]);
  }

  /** The same, with these options beside those of every broker here. */
  startWith(...options: string[]): Promise<Running> {
    return this.serving([process.execPath, ...this.daemon(), ...options]);
  }

  private async serving(command: readonly string[]): Promise<Running> {
    const broker = this.run(command, "the broker");
    await broker.until(() => (broker.stderr.includes("serves") ? true : undefined));
    this.broker = broker;
    return broker;
  }

  /** The broker that runs now; with several, the last. */
  private broker: Running | undefined;

  /** Its process. */
  get pid(): number {
    return this.broker!.child.pid!;
  }

  /** Lets the broker read the policy again. */
  async reload(): Promise<void> {
    const count = (): number => this.log().filter(({ event }) => event === "reload").length;
    const before = count();
    this.broker!.child.kill("SIGHUP");
    await this.settled(() => Promise.resolve(count() > before));
  }

  /** A file of the folder, for anybody to read. */
  file(name: string, text: string): void {
    writeFileSync(this.path(name), text, { mode: 0o644 });
  }

  /** The path of a file of the folder. */
  path(name: string): string {
    return path.join(this.folder, name);
  }

  /** The arguments by which node runs `bifurcated` here. */
  daemon(): string[] {
    return [bin("bifurcated.mjs"), ...this.options];
  }

  /** The arguments by which node runs `bifurcate ARGS`. */
  cli(...args: string[]): string[] {
    return [bin("bifurcate.mjs"), ...args];
  }

  /** What `bifurcate leases --json` says to that user; root when left out. */
  async leases(uid?: number): Promise<{ id: string; state: string; pid: number; uid: number }[]> {
    const command = [process.execPath, ...this.cli("leases", "--json")];
    const running = this.run(uid === undefined ? command : [...powerless(uid), ...command], "leases");
    if ((await running.ended) !== 0) throw new Error(running.stderr);
    return (JSON.parse(running.lines.join("\n")) as { leases: never }).leases;
  }

  /** What another process of that user, root when left out, is answered that resumes and returns that lease: codes. */
  async resumeAndReturn(lease: string, uid?: number): Promise<string[]> {
    const client = fileURLToPath(new URL("../../../control/dist/protocol/client.js", import.meta.url));
    const script = `
      const { BrokerConnection } = await import(${JSON.stringify(client)});
      const broker = await BrokerConnection.connect();
      for (const what of ["resume", "return"]) {
        console.log(what, await broker[what](process.argv[1]).then(() => "done", ({ code }) => code));
      }
      broker.close();`;
    const command = [process.execPath, "--input-type=module", "-e", script, lease];
    const running = this.run(uid === undefined ? command : [...powerless(uid), ...command], "another");
    if ((await running.ended) !== 0) throw new Error(running.stderr);
    return running.lines;
  }

  /** Waits until it is so. */
  async settled(so: () => Promise<boolean | undefined>): Promise<void> {
    for (const end = Date.now() + PATIENCE_MS; Date.now() < end;) {
      if ((await so()) === true) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error("it never came to be so");
  }

  /** Waits until the broker has noticed the end of every connection: from then on it holds nothing of their clients. */
  async alone(): Promise<void> {
    await this.settled(() => Promise.resolve(this.connections().length === 0));
  }

  /** The broker's connections, by inode: an accepted socket has the listener's path (unix(7)), and is in state 03. */
  connections(): string[] {
    const rows = readFileSync(`/proc/${this.pid}/net/unix`, "utf8").split("\n");
    return rows.flatMap((row) => {
      const [, inode, at] = / 03 +(\d+) (\S+)$/.exec(row) ?? [];
      return at === this.socket ? [inode!] : [];
    });
  }

  /** Runs a command in the namespace that brokers serve. */
  run(command: readonly string[], what: string, netns = this.netns): Running {
    const child = spawn("ip", ["netns", "exec", netns, ...command], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, BIFURCATE_BROKER: this.socket, BIFURCATE_STATE_DIR: this.state },
    });
    const running = new Running(child, what);
    this.running.add(running);
    void running.ended.then(() => this.running.delete(running));
    return running;
  }

  /** Runs `bifurcate ARGS` as a user without any capability. */
  client(
    args: readonly string[],
    uid = NOBODY,
    netns = this.netns,
    groups: readonly number[] = [uid],
  ): Running {
    return this.run(
      [...powerless(uid, groups), process.execPath, bin("bifurcate.mjs"), ...args],
      "the client",
      netns,
    );
  }

  /** The audit log so far: its whole lines, since the broker may be writing another. */
  log(): AuditLine[] {
    return readFileSync(this.audit, "utf8")
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line) as AuditLine);
  }

  /** Waits for an entry of the audit log. */
  async logged(match: (entry: AuditLine) => boolean): Promise<AuditLine> {
    for (const end = Date.now() + PATIENCE_MS; Date.now() < end;) {
      const found = this.log().find(match);
      if (found !== undefined) return found;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`not in the audit log: ${JSON.stringify(this.log())}`);
  }

  /** Ends what runs and removes the folder with its file system. */
  async remove(): Promise<void> {
    await Promise.all([...this.running].map((each) => each.end("SIGKILL")));
    execFileSync("umount", [path.join(this.folder, "bpf")]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/**
 * The command before a command that takes every right away: another user, and no capability, not even to gain one.
 * @param groups Its group, and those that it is in beside; one of the user's own number when left out.
 */
export function powerless(uid = NOBODY, [group, ...beside]: readonly number[] = [uid]): string[] {
  return [
    "setpriv",
    `--reuid=${uid}`,
    `--regid=${group}`,
    beside.length === 0 ? "--clear-groups" : `--groups=${beside.join(",")}`,
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
  ];
}

/** The split's id and process, once the command says that it is open. */
export async function opened(client: Running): Promise<{ readonly id: string; readonly pid: number }> {
  return JSON.parse(await client.line('"event":"split"')) as { id: string; pid: number };
}

/** What a broker and its leases have of the machine now. */
export function whatIsLeft(place: BrokerPlace): {
  readonly interfaces: string[];
  readonly pins: string[];
  readonly records: string[];
  readonly descriptors: number;
} {
  const links = execFileSync("ip", ["-n", place.netns, "-br", "link"], { encoding: "utf8" });
  const names = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder).sort() : []);
  return {
    interfaces: links
      .trim()
      .split("\n")
      .map((line) => line.split(/[\s@]/)[0]!)
      .sort(),
    pins: names(place.bpffs),
    records: names(path.join(place.state, "leases")),
    descriptors: readdirSync(`/proc/${place.pid}/fd`).length,
  };
}
