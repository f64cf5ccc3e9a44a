// One mechanism measured: quiet, a moderate rate, flooded, stopped; the kernel's own traffic beside it all the while.

import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { KernelTraffic, Measurement } from "@bifurcate/control";
import { Child } from "./child.js";
import type { EchoClientSettings, EchoRequest } from "./echo-client-main.js";
import type { EchoSettings } from "./echo-server-main.js";
import { ECHO_PORT, type End } from "./packet.js";
import type { SenderSettings, SendRequest, Sent } from "./sender-main.js";
import type { Counted, SubjectSettings } from "./subject-main.js";

/** An end of the wire, and where it is. */
export interface WireEnd extends End {
  readonly ifname: string;
  readonly netns: string | null;
}

/** The wire that is measured on: the card, and who sends to it. */
export interface Wire {
  readonly card: WireEnd;
  readonly peer: WireEnd;
}

/** How a program can receive. */
export type Means =
  | { readonly kind: "socket" }
  | { readonly kind: "split"; readonly options: Extract<SubjectSettings["by"], { kind: "split" }>["options"] }
  | { readonly kind: "vhost-user" }
  /** Datagrams between RDMA devices of both ends of the wire. */
  | { readonly kind: "verbs"; readonly card: string; readonly peer: string };

/** Packets a second of the phase that latency is measured in: far below what any mechanism can take. */
const MODERATE_RATE = 10_000;
/** What is in flight when a phase ends arrives within this time, in milliseconds. */
const SETTLE_MS = 200;
/** Where two ends of datagrams meet: both are processes of this machine. */
const LOOPBACK = "127.0.0.1";

/**
 * Measures one mechanism: four phases of `seconds` each.
 * @throws E_MEASUREMENT when a process of it fails; the reason names the error that it had.
 */
export async function measure(
  wire: Wire,
  means: Means,
  seconds: number,
  signal: AbortSignal,
): Promise<Measurement> {
  const folder = mkdtempSync(join(tmpdir(), "bifurcate-compare-"));
  const children: Child[] = [];
  const start = async <T>(
    name: ConstructorParameters<typeof Child>[0],
    netns: string | null,
    settings: object,
  ): Promise<[Child, T]> => {
    signal.throwIfAborted();
    const child = new Child(name, netns, settings);
    children.push(child);
    return [child, await child.ready<T>()];
  };
  const { card, peer } = wire;
  const cores = availableParallelism() > 1 ? { sender: 0, subject: 1 } : { sender: null, subject: null };
  try {
    const server: EchoSettings = { address: card.address, ifname: card.ifname };
    await start("echo-server", card.netns, server);
    const asking: EchoClientSettings = { address: card.address, ifname: peer.ifname, port: ECHO_PORT };
    const [client] = await start("echo-client", peer.netns, asking);
    const meeting = means.kind === "verbs" ? await freePort() : 0;
    const [subject, path] = await start<string>("subject", means.kind === "socket" ? card.netns : null, {
      by: receiving(means, card, folder, meeting),
      core: cores.subject,
    } satisfies SubjectSettings);
    const out = sendingTo(means, peer, folder, meeting);
    const sending: SenderSettings = { from: peer, to: card, out, core: cores.sender };
    const [sender] = await start("sender", null, sending);

    const echo = (): Promise<KernelTraffic> => client.ask({ seconds } satisfies EchoRequest, seconds);
    const send = (rate: number | null): Promise<Sent> =>
      sender.ask({ seconds, rate } satisfies SendRequest, seconds);
    const take = async (): Promise<Counted> => {
      await delay(SETTLE_MS);
      signal.throwIfAborted();
      return subject.ask<Counted>({});
    };

    await reachable(client);
    const quiet = await echo();
    // Code that has not run yet is slow: what it takes to become fast is no latency of the mechanism.
    await sender.ask({ seconds: 0.5, rate: MODERATE_RATE } satisfies SendRequest, 1);
    await take();
    const calm = await send(MODERATE_RATE);
    const calmly = await take();
    const [flood, flooded] = await Promise.all([send(null), echo()]);
    const took = await take();
    subject.hold(true);
    const [, stopped] = await Promise.all([send(null), echo()]);
    subject.hold(false);
    return {
      saturated: {
        offered: flood.packets / flood.seconds,
        received: took.packets / flood.seconds,
        loss: lossOf(flood, took),
        cpuPerPacket: took.cpu / Math.max(1, took.packets),
        cpu: took.cpu / 1e9 / took.seconds,
      },
      latency: {
        offered: calm.packets / calm.seconds,
        loss: lossOf(calm, calmly),
        p50: calmly.p50,
        p99: calmly.p99,
        cpuPerPacket: calmly.cpu / Math.max(1, calmly.packets),
      },
      kernel: { quiet, saturated: flooded, stopped },
      path,
    };
  } finally {
    for (const child of children.reverse()) await child.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Neighbours find each other, and a link that an XDP program took down comes back. */
async function reachable(client: Child): Promise<void> {
  for (let tries = 0; tries < 50; tries += 1) {
    const { answered } = await client.ask<KernelTraffic>({ seconds: 0.1 } satisfies EchoRequest, 1);
    if (answered > 0) return;
  }
}

/** A port of TCP that nobody listens at, for two ends of datagrams to meet. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(0, LOOPBACK, resolve);
  });
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

function sendingTo(means: Means, peer: WireEnd, folder: string, meeting: number): SenderSettings["out"] {
  switch (means.kind) {
    case "vhost-user":
      return { spec: `virtio-user:${folder}/vm.sock` };
    case "verbs":
      return { spec: `verbs:${means.peer},peer=${LOOPBACK}:${meeting}` };
    default:
      return peer;
  }
}

function receiving(means: Means, card: WireEnd, folder: string, meeting: number): SubjectSettings["by"] {
  switch (means.kind) {
    case "socket":
      return { kind: "socket", address: card.address, ifname: card.ifname };
    case "split":
      return { kind: "split", ifname: card.ifname, netns: card.netns, options: means.options };
    case "vhost-user":
      return { kind: "open", spec: `vhost-user:${folder}/vm.sock,server` };
    case "verbs":
      return { kind: "open", spec: `verbs:${means.card},server=${LOOPBACK}:${meeting}` };
  }
}

function lossOf(sent: Sent, counted: Counted): number {
  return sent.packets === 0 ? 0 : Math.max(0, 1 - counted.packets / sent.packets);
}
