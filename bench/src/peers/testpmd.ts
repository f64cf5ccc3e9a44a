// DPDK's testpmd (Debian package dpdk-dev) as the peer: started, driven over its prompt, read.
import { setTimeout as sleep } from "node:timers/promises";
import { Child, cpuTime } from "../child.js";

export interface TestpmdOptions {
  readonly vdev: readonly string[];
  readonly forward: "macswap" | "io" | "rxonly" | "txonly" | "mac";
  readonly burst?: number;
  readonly buffers?: number;
  /** mbufs in the per-lcore cache; 0 makes every buffer come from the shared ring (a cold walk). */
  readonly cache?: number;
  /** The core that polls; the other one runs the prompt. */
  readonly core?: 0 | 1;
  readonly netns?: string;
  readonly seconds: number;
}

export interface TestpmdRun {
  readonly packets: number;
  readonly perSecond: number;
  /** Nanoseconds of CPU, user and system, of the whole process in the measured window. */
  readonly cpu: number;
  readonly command: string;
}

let instance = 0;

/** Runs testpmd for `seconds` after a settling time and reads its own rate over exactly that window. */
export async function testpmd(options: TestpmdOptions): Promise<TestpmdRun> {
  instance += 1;
  const core = options.core ?? 1;
  const args = [
    ...[
      "--in-memory",
      "--no-pci",
      `--file-prefix=bf${process.pid}x${instance}`,
      "-m",
      "512",
      "--single-file-segments",
    ],
    ...["--lcores", core === 1 ? "0@0,1@1" : "0@1,1@0"],
    ...options.vdev.flatMap((device) => ["--vdev", device]),
    ...["--", "-i", `--forward-mode=${options.forward}`, `--burst=${options.burst ?? 32}`],
    `--total-num-mbufs=${options.buffers ?? 8192}`,
    ...(options.cache === undefined ? [] : [`--mbcache=${options.cache}`]),
  ];
  const inside = options.netns === undefined ? [] : ["ip", "netns", "exec", options.netns];
  // Into a pipe testpmd would write in blocks of 4 KiB, and its answers would come when nobody waits any more.
  const [command, ...rest] = [...inside, "stdbuf", "-oL", "dpdk-testpmd", ...args];
  const child = new Child(command!, rest);
  try {
    await child.saw(/testpmd> $/);
    child.type("start");
    await sleep(700); // let caches and the far end settle
    await stats(child);
    const before = cpuTime(child.pid);
    await sleep(options.seconds * 1000);
    const cpu = cpuTime(child.pid) - before;
    const perSecond = await stats(child);
    const packets = perSecond * options.seconds;
    child.type("stop");
    child.type("quit");
    await child.ended;
    return { packets, perSecond, cpu, command: child.line };
  } finally {
    await child.end();
  }
}

/** `show port stats 0`: the rate since the last call, by testpmd's own clock. */
async function stats(child: Child): Promise<number> {
  const from = child.output.length;
  child.type("show port stats 0");
  const deadline = Date.now() + 5000;
  for (;;) {
    const match = /Rx-pps:\s+(\d+)/.exec(child.output.slice(from));
    if (match !== null) return Number(match[1]);
    if (Date.now() > deadline)
      throw new Error(`'${child.line}' gave no statistics:\n${child.output.slice(-2000)}`);
    await sleep(10);
  }
}
