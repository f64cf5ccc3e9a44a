// testpmd as one end of a vhost-user socket: started once, told to forward, asked for its rate and busy cycles.
import { existsSync, rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Child } from "../child.js";

export interface EndOptions {
  /** e.g. "net_vhost0,iface=/tmp/x.sock". */
  readonly vdev: string;
  readonly forward: "macswap" | "io" | "rxonly" | "txonly";
  readonly core: 0 | 1;
  readonly burst: number;
  /** Bytes of the packets that txonly and tx_first make. */
  readonly length: number;
  /** Bursts to send before forwarding. */
  readonly first?: number;
}

export interface EndRate {
  readonly rx: number;
  readonly tx: number;
  /** Of the time stamp counter, over polls that found packets; null where testpmd counted none. */
  readonly cycles: number | null;
}

/**
 * Both sides of every comparison run with round-robin real-time priority: two pollers on two cores have nobody else to
 * measure then.
 */
export const ALONE = ["chrt", "-r", "10"] as const;

let instance = 0;

/** Removes what a run before left of a socket. */
export function fresh(socket: string): string {
  rmSync(socket, { force: true });
  return socket;
}

export async function present(socket: string): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!existsSync(socket)) {
    if (Date.now() > deadline) throw new Error(`nobody listens at ${socket}`);
    await sleep(20);
  }
}

export class End {
  private constructor(
    private readonly child: Child,
    readonly command: string,
  ) {}

  static async start(options: EndOptions): Promise<End> {
    instance += 1;
    const args = [
      ...["--in-memory", "--no-pci", `--file-prefix=bfe${process.pid}x${instance}`, "-m", "512"],
      ...["--single-file-segments", "--lcores", options.core === 1 ? "0@0,1@1" : "0@1,1@0"],
      ...["--vdev", options.vdev, "--", "-i", `--forward-mode=${options.forward}`],
      ...[`--burst=${options.burst}`, `--txpkts=${options.length}`, "--total-num-mbufs=8192"],
    ];
    const [command, ...rest] = [...ALONE, "stdbuf", "-oL", "dpdk-testpmd", ...args];
    const child = new Child(command!, rest);
    const end = new End(child, ["dpdk-testpmd", ...args].join(" "));
    try {
      // Not the prompt: stderr goes on after it, or comes into the middle of it. What is typed waits to be read.
      await child.saw(/\bDone\b/);
      child.type("set record-core-cycles on");
      return end;
    } catch (error) {
      await end.end();
      throw error;
    }
  }

  forward(first = 0): void {
    this.child.type(first > 0 ? `start tx_first ${first}` : "start");
  }

  /** From now on it asks for so many packets at a time. */
  burst(packets: number): void {
    this.child.type(`set burst ${packets}`);
  }

  /** Rates over `seconds` by testpmd's own clock. */
  async measure(seconds: number): Promise<EndRate> {
    this.child.type("clear fwd stats all");
    await this.ask("show port stats 0", /Tx-pps:\s+\d+/);
    await sleep(seconds * 1000);
    const rates = await this.ask("show port stats 0", /Rx-pps:\s+(\d+)[^#]*Tx-pps:\s+(\d+)/);
    // The cycles stand after the block of sums, once a packet was forwarded, as one was wherever a rate is compared.
    const cycles =
      Number(rates[1]) + Number(rates[2]) > 0
        ? await this.ask("show fwd stats all", /Accumulated forward[^]*CPU cycles\/packet=([\d.]+)/)
        : null;
    return {
      rx: Number(rates[1]),
      tx: Number(rates[2]),
      cycles: cycles === null ? null : Number(cycles[1]),
    };
  }

  async end(): Promise<void> {
    await this.child.end();
  }

  private async ask(line: string, answer: RegExp): Promise<RegExpExecArray> {
    const from = this.child.output.length;
    this.child.type(line);
    const deadline = Date.now() + 10_000;
    for (;;) {
      const match = answer.exec(this.child.output.slice(from));
      if (match !== null) return match;
      if (Date.now() > deadline) {
        throw new Error(`'${this.command}' did not answer '${line}':\n${this.child.output.slice(-2000)}`);
      }
      await sleep(20);
    }
  }
}
