// For tests in the lab's guest: a broker as its own user with its four capabilities, and clients of it that have none.

import type { Guest } from "@bifurcate/lab/guest/guest";
import type { GuestProcess } from "@bifurcate/lab/guest/guest-process";
import { NEEDED } from "@bifurcate/control/broker/start";
import { NOBODY, OTHER, powerless } from "./broker.js";
import type { CardClientWords } from "./card-client.js";
import { putProgram } from "./guest-program.js";
import { LIFE, shell } from "./guest-split.js";

/** The broker's user in a guest. */
const USER = 990;
const PLACE = "/run/bf-broker";
const BPF = "/run/bf-broker-bpf";
/** Seconds that a command may take in a guest on a busy machine. */
const LIMIT = 200;

/** A line of a client's. */
export interface CardEvent {
  readonly event: "open" | "lease" | "lost" | "end" | "refused";
  readonly id?: string;
  readonly pid?: number;
  readonly mac?: string;
  readonly code?: string;
  readonly why?: string;
  readonly received?: number;
  readonly sent?: number;
}

/** A lease as `bifurcate leases --json` shows it. */
interface Listed {
  readonly id: string;
  readonly state: string;
  readonly device: string;
}

/** What a process has said so far. */
class Said {
  text = "";
  private readonly waiting = new Set<() => void>();

  constructor(process: GuestProcess) {
    for (const stream of [process.stdout, process.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.text += text;
        this.wake();
      });
    }
    void process.ended.finally(() => this.wake()).catch(() => undefined);
  }

  private wake(): void {
    for (const each of this.waiting) each();
    this.waiting.clear();
  }

  /** Waits until `found` gives something; rejects with what was said when the process has ended before. */
  async until<T>(process: GuestProcess, found: (text: string) => T | undefined): Promise<T> {
    let over = false;
    void process.ended.then(() => (over = true));
    for (;;) {
      const value = found(this.text);
      if (value !== undefined) return value;
      if (over) throw new Error(`it ended: ${this.text}`);
      await new Promise<void>((resolve) => this.waiting.add(resolve));
    }
  }
}

/** The command before a command that makes it the broker's user with the broker's capabilities. */
function asBroker(): string[] {
  const set = NEEDED.map((each) => `+${each.replace("CAP_", "").toLowerCase()}`).join(",");
  const ids = [`--reuid=${USER}`, `--regid=${USER}`, "--clear-groups", "--no-new-privs"];
  return [
    "setpriv",
    ...ids,
    `--inh-caps=-all,${set}`,
    `--ambient-caps=-all,${set}`,
    `--bounding-set=-all,${set}`,
  ];
}

/** A broker in a guest, one after another, with its clients. */
export class GuestBroker {
  private readonly said = new Map<GuestProcess, Said>();
  private readonly running = new Set<GuestProcess>();
  private readonly taken = new Set<string>();
  private current: GuestProcess | undefined;
  private clientProgram = "";

  constructor(private readonly guest: Guest) {}

  /** Does as root what root does: the folders. */
  async prepare(): Promise<void> {
    await shell(this.guest, `bifurcate take --for-broker --user ${USER} --bpf ${BPF} --run ${PLACE}`);
    this.clientProgram = await putProgram(this.guest, "bifurcate/src/testing/card-client.ts");
  }

  /** Takes a card for the broker, as root. */
  async take(card: string): Promise<void> {
    await shell(this.guest, `bifurcate take ${card} --for-broker --user ${USER}`);
    this.taken.add(card);
  }

  /** Has root take a card, unless it has, and the policy give it to two users. */
  async offer(card: string): Promise<void> {
    if (!this.taken.has(card)) await this.take(card);
    const users = `${NOBODY}, ${OTHER}`;
    await this.policy(
      `[card]\nuser = ${users}\ndevice = ${card}\nmechanism = vfio\ntransmit = raw\nmemory = 64M\n`,
    );
  }

  /** Gives every card that was taken back to the kernel. */
  async give(): Promise<void> {
    for (const card of this.taken) await shell(this.guest, `bifurcate give ${card}`);
    this.taken.clear();
  }

  /** Writes the policy. */
  async policy(text: string): Promise<void> {
    await this.guest.run(["tee", `${PLACE}/policy`], { input: text });
    await shell(this.guest, `chown 0:0 ${PLACE}/policy; chmod 644 ${PLACE}/policy`);
  }

  /** Starts a broker, and waits until it serves; gives what it said. `before`: words before the command. */
  async start(...before: string[]): Promise<string> {
    const command = [
      "node",
      "bifurcate/bin/bifurcated.mjs",
      "--policy",
      `${PLACE}/policy`,
      "--socket",
      this.socket,
      "--state",
      PLACE,
    ];
    const process = this.run([...before, ...asBroker(), ...command, "--bpffs", `${BPF}/names`]);
    this.current = process;
    return this.said.get(process)!.until(process, (text) => (/serves.*\n/.test(text) ? text : undefined));
  }

  /** Where it listens. */
  get socket(): string {
    return `${PLACE}/broker.sock`;
  }

  private run(command: readonly string[]): GuestProcess {
    const process = this.guest.start(command, { limit: LIFE, env: { BIFURCATE_BROKER: this.socket } });
    this.said.set(process, new Said(process));
    this.running.add(process);
    void process.ended.finally(() => this.running.delete(process)).catch(() => undefined);
    return process;
  }

  /** Kills the broker, as nothing can be prepared for. */
  async kill(): Promise<void> {
    this.current!.kill("SIGKILL");
    await this.current!.ended;
  }

  /** Starts a client as a user without any right; gives its first line. */
  client(words: CardClientWords, uid = NOBODY): Promise<[GuestProcess, CardEvent]> {
    return this.leasing(["node", this.clientProgram, JSON.stringify(words)], uid);
  }

  /** As `client`, another program that says in lines of JSON what came of its lease. */
  async leasing(command: readonly string[], uid = NOBODY): Promise<[GuestProcess, CardEvent]> {
    const process = this.run([...powerless(uid), ...command]);
    const answers: readonly string[] = ["open", "lease", "refused"];
    const first = await this.said
      .get(process)!
      .until(process, (text) => events(text).find(({ event }) => answers.includes(event)));
    return [process, first];
  }

  /** Starts another program as a user without any right; gives the first of what it says that matches. */
  async tool(command: readonly string[], wanted: RegExp): Promise<string> {
    const process = this.run([...powerless(NOBODY), ...command]);
    return this.said.get(process)!.until(process, (text) => wanted.exec(text)?.[0]);
  }

  /** Kills everything but the broker. */
  async killClients(): Promise<void> {
    const clients = [...this.running].filter((each) => each !== this.current);
    for (const process of clients) process.kill("SIGKILL");
    await Promise.all(clients.map((each) => each.ended));
  }

  /** A line of a client's, which is waited for. */
  event(process: GuestProcess, wanted: CardEvent["event"]): Promise<CardEvent> {
    return this.said
      .get(process)!
      .until(process, (text) => events(text).find(({ event }) => event === wanted));
  }

  /** What root is shown of the leases. */
  async leases(): Promise<Listed[]> {
    const env = { BIFURCATE_BROKER: this.socket };
    const { status, stdout, stderr } = await this.guest.run(["bifurcate", "leases", "--json"], {
      limit: LIMIT,
      env,
    });
    if (status !== 0) throw new Error(stderr);
    return (JSON.parse(stdout) as { leases: Listed[] }).leases;
  }

  /** Takes a lease back, as root; gives what is said of it. */
  async release(id: string): Promise<string> {
    const env = { BIFURCATE_BROKER: this.socket };
    const { status, stdout, stderr } = await this.guest.run(["bifurcate", "release", id], {
      limit: LIMIT,
      env,
    });
    if (status !== 0) throw new Error(stderr);
    return stdout;
  }

  /** The states of all leases, as the broker has written them down: to ask it takes a guest ten seconds and more. */
  async states(): Promise<string[]> {
    const found = await shell(this.guest, `grep -ho '"state":"[a-z]*"' ${PLACE}/leases/*.json || true`);
    return [...found.matchAll(/:"([a-z]+)"/g)].map(([, state]) => state!);
  }

  /** Whether all leases end. */
  async free(): Promise<boolean> {
    for (let tries = 0; tries < 300; tries++) {
      if ((await this.states()).length === 0) return true;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    return false;
  }

  /** Ends clients and broker. */
  async endAll(): Promise<void> {
    for (const process of this.running) process.kill("SIGKILL");
    await Promise.all([...this.running].map((each) => each.ended));
    await shell(this.guest, `rm -rf ${PLACE}/leases ${this.socket}`);
  }
}

function events(text: string): CardEvent[] {
  return text
    .split("\n")
    .filter((line) => line.startsWith("{") && line.endsWith("}"))
    .map((line) => JSON.parse(line) as CardEvent);
}
