// For tests of splits on real drivers: a split in the guest, paced traffic at its far end, the card's settings.

import { countAnswers } from "./echo-requests.js";
import { ECHO } from "./echo.js";
import { putProgram } from "./guest-program.js";
import { RunningSplit, type StreamEvent } from "@bifurcate/lab/harness";
import type { Guest } from "@bifurcate/lab/guest/guest";
import type { Wire } from "@bifurcate/lab/guest/wire";
import type { Stream as Datagrams } from "@bifurcate/lab/traffic/datagrams";

/** What a test reads of `split --json`'s first line. */
export interface SplitPath {
  readonly backend: string;
  readonly queues: readonly number[];
  readonly mode: string;
  readonly xdp: string | null;
  readonly obtained: { readonly zeroCopy: boolean; readonly refused: readonly string[] };
  readonly notes: readonly string[];
}

/** Counters of a split's last line. */
export interface Stats {
  readonly received: number;
  readonly sent: number;
  readonly noFrames: number;
  readonly tooLong: number;
  readonly queues: readonly { readonly received: number }[];
}

/** Seconds that one command may take in a guest on a busy machine. */
const LIMIT = 200;

/** Seconds that a split or a service may run: below the limit of a test, so that a hang shows the guest's console. */
export const LIFE = 560;

/** Writes the handler that echoes UDP into the guest; gives its path. */
export async function echoHandler(guest: Guest): Promise<string> {
  const file = "/tmp/echo.mjs";
  await guest.run(["tee", file], { input: ECHO });
  return file;
}

/** Starts a split in the guest; its first line says the path. */
export async function startSplit(
  guest: Guest,
  words: readonly string[],
): Promise<{ split: RunningSplit; path: SplitPath; process: ReturnType<Guest["start"]> }> {
  const process = guest.start(["bifurcate", "split", ...words, "--json"], { limit: LIFE });
  const split = new RunningSplit(process);
  const { path } = (await split.event("split")) as StreamEvent & { path: SplitPath };
  return { split, path, process };
}

/** Ends a split by SIGTERM; gives its last counters. */
export async function endSplit(split: RunningSplit): Promise<Stats> {
  const { status, stderr } = await split.end("SIGTERM");
  if (status !== 0) throw new Error(`the split ended with ${status}: ${stderr}`);
  return split.events.find((each) => each.event === "end")!["stats"] as Stats;
}

/** Waits until a split has received so many frames: one that is ended takes no more out of its rings. */
export async function receives(split: RunningSplit, count: number): Promise<void> {
  await split.event("rates", ({ stats }) => (stats as Stats).received >= count);
}

/** How a stream of datagrams goes; see lab/src/traffic/datagrams.ts. */
export type Stream = Pick<Datagrams, "count"> & Partial<Omit<Datagrams, "port">>;

/**
 * What a stream is like of which only the count is said: a rate that a card in software emulation on a busy machine
 * carries; and time for a handler's worker, which comes up slowly there.
 */
const STREAM = { rate: 400, size: 64, quiet: 60, sources: [] } as const;

/** Sends datagrams from the far end and counts those that came back. */
export async function datagrams(
  guest: Guest,
  wire: Wire,
  port: number,
  stream: Stream,
): Promise<{ sent: number; echoed: number; beside: number }> {
  const whole: Datagrams = { ...STREAM, host: wire.nic.v4, port, ...stream };
  const words = ["node", "lab/dist/traffic/datagrams.js", JSON.stringify(whole)];
  const ended = await guest.run(["ip", "netns", "exec", wire.far.netns, ...words], { limit: LIMIT });
  if (ended.status !== 0) throw new Error(`the sender ended with ${ended.status}: ${ended.stderr}`);
  return JSON.parse(ended.stdout) as { sent: number; echoed: number; beside: number };
}

const servers: ReturnType<Guest["start"]>[] = [];

/** Starts the kernel's own echo service (port 7) in the guest, beside a split; endServers() ends it. */
export async function kernelEcho(guest: Guest): Promise<void> {
  const server = guest.start(["node", "lab/dist/traffic/kernel-server.js"], { limit: LIFE });
  servers.push(server);
  let said = "";
  server.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  const up = new Promise<null>((resolve) => server.stdout.once("data", () => resolve(null)));
  const status = await Promise.race([up, server.ended]);
  if (status !== null) throw new Error(`the echo service ended with ${status}: ${said}`);
}

/** Ends what kernelEcho() started, also after a test that failed. */
export async function endServers(): Promise<void> {
  for (const server of servers.splice(0)) {
    server.kill("SIGTERM");
    await server.ended;
  }
}

/** The error object of a command that is to fail. */
export async function failure(
  guest: Guest,
  words: readonly string[],
): Promise<{ status: number; code: string; why: string }> {
  const { status, stdout, stderr } = await guest.run(["bifurcate", ...words, "--json"], { limit: LIMIT });
  const line = stderr.trim().split("\n").at(-1) ?? "";
  if (status === null || !line.startsWith("{"))
    throw new Error(`it did not fail: ${status} ${stdout} ${stderr}`);
  const { error } = JSON.parse(line) as { error: { code: string; why: string } };
  return { status, code: error.code, why: error.why };
}

/** What `ethtool -l -x -k -n -g` say of a card. */
export async function settings(guest: Guest, name: string): Promise<string> {
  const script = `for flag in -l -x -k -n -g; do echo "ethtool $flag"; ethtool $flag ${name} 2>&1; done`;
  return (await guest.run(["sh", "-c", script])).stdout;
}

/** Runs a shell command that is to succeed; gives what it printed. */
export async function shell(guest: Guest, script: string): Promise<string> {
  const { status, stdout, stderr } = await guest.run(["sh", "-c", script], { limit: LIMIT });
  if (status !== 0) throw new Error(`${script}: status ${status}: ${stdout}${stderr}`);
  return stdout;
}

/** Asks the DNS example at `address` from the far end until it answers, which waits for its worker to come up too. */
export async function resolves(guest: Guest, wire: Wire, address: string): Promise<void> {
  const dig = `dig +tries=30 +time=2 +short @${address} www.bifurcate.test`;
  const said = await shell(guest, `ip netns exec ${wire.far.netns} ${dig}`);
  if (!said.includes("192.0.2.80")) throw new Error(`no answer from ${address}: ${said}`);
}

/** How many of three echo requests from the far end of a wire are answered, up to the first that is not. */
export async function pings(guest: Guest, wire: Wire, target = wire.nic.v4): Promise<number> {
  return Number(await shell(guest, countAnswers(target, wire.far.netns)));
}

/** Whether an echo request from the far end of a wire is answered by a card that should be mute. */
export async function answers(guest: Guest, wire: Wire): Promise<boolean> {
  // Each is waited for in full, where all is well.
  const words = countAnswers(wire.nic.v4, wire.far.netns, { count: 1, wait: 10 });
  return Number(await shell(guest, words)) > 0;
}

/**
 * Sends echo requests to a card from the far end of its wire until the kernel's log tells of a fault of its IOMMU; gives
 * the log. The log is to be empty of them before.
 */
export async function faults(guest: Guest, wire: Wire): Promise<string> {
  const ping = `ip netns exec ${wire.far.netns} ping -n -q -c 1 -W 1 ${wire.nic.v4} > /dev/null || :`;
  return shell(guest, `for i in $(seq 60); do ${ping}; dmesg | grep -q 'DMAR: \\[DMA' && break; done; dmesg`);
}

/** A process in the guest that owns a split. */
export interface Owner {
  readonly process: ReturnType<Guest["start"]>;
  /** What it has printed. */
  said(): string;
}

/**
 * Starts control/src/testing/owner.ts on a device of the guest's first namespace: it owns a split with `steps` besides
 * those of its plan. Resolves when it says that it is live, or has ended.
 */
export async function own(guest: Guest, device: string, flow: string, steps: unknown): Promise<Owner> {
  const program = await putProgram(guest, "control/src/testing/owner.ts");
  const words = ["node", program, "/proc/1/ns/net", device, JSON.stringify({ flows: [flow], steps })];
  const process = guest.start(words, { limit: LIFE });
  let text = "";
  const live = new Promise<void>((resolve) => {
    for (const stream of [process.stdout, process.stderr]) {
      stream.setEncoding("utf8").on("data", (more: string) => {
        text += more;
        if (text.includes('"word":"live"')) resolve();
      });
    }
  });
  await Promise.race([live, process.ended]);
  return { process, said: () => text };
}

/** Waits until no split is left to undo: a guardian works after its owner has ended. */
export async function undone(guest: Guest): Promise<void> {
  const gone = '[ -z "$(ls /run/bifurcate/*.json 2> /dev/null)" ] && exit 0';
  await shell(guest, `for i in $(seq 900); do ${gone}; sleep 0.2; done; exit 1`);
}
