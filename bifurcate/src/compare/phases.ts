// One mechanism measured: quiet, a moderate rate, flooded, stopped; the kernel's own traffic beside it all the while.

import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { KernelTraffic, Measurement } from "@bifurcate/control/compare/measurement";
import { BifurcateError } from "@bifurcate/control/errors";
import { protectsMemory } from "@bifurcate/control/card/mechanism";
import { CORES, type Bystanders } from "./bystanders.js";
import { Child } from "./child.js";
import type { EchoRequest } from "./echo-client-main.js";
import type { Means } from "./means.js";
import { flowTo, type End } from "./packet.js";
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

/** How a mechanism is measured. */
export interface Pace {
  /** Of each phase. */
  readonly seconds: number;
  /** Packets a second of the phase that latency is measured in: far below what any mechanism can take. */
  readonly rate: number;
}

/** What is in flight when a phase ends arrives within this time, in milliseconds. */
const SETTLE_MS = 200;
/** Where two ends of datagrams meet: both are processes of this machine. */
const LOOPBACK = "127.0.0.1";

/**
 * Measures one mechanism: four phases.
 * @throws E_MEASUREMENT when a process of it fails; the reason names the error that it had.
 */
export async function measure(
  wire: Wire,
  means: Means,
  bystanders: Bystanders,
  { seconds, rate: moderate }: Pace,
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
  const none = noKernelTraffic(means);
  try {
    const meeting = means.kind === "verbs" ? await freePort() : 0;
    const [subject, path] = await start<string>("subject", means.kind === "socket" ? card.netns : null, {
      by: receiving(means, card, folder, meeting),
      core: CORES.subject,
    } satisfies SubjectSettings);
    const spec = sendingTo(means, folder, meeting);
    const sending = { from: peer, to: card, core: CORES.sender };
    const sender =
      spec === null
        ? await bystanders.sender()
        : (await start("sender", null, { ...sending, out: { spec } } satisfies SenderSettings))[0];
    const client = none === null ? await bystanders.echo() : null;
    const mac = means.kind === "function" ? means.mac : card.mac;

    const echo = (): Promise<KernelTraffic | null> =>
      client === null ? Promise.resolve(null) : client.ask({ seconds } satisfies EchoRequest, seconds);
    const send = (rate: number | null): Promise<Sent> =>
      sender.ask({ seconds, rate, mac } satisfies SendRequest, seconds);
    const take = async (): Promise<Counted> => {
      await delay(SETTLE_MS);
      signal.throwIfAborted();
      return subject.ask<Counted>({});
    };

    if (client !== null) await reachable(client);
    const quiet = await echo();
    // Code that has not run yet is slow: what it takes to become fast is no latency of the mechanism.
    await sender.ask({ seconds: 0.5, rate: moderate, mac } satisfies SendRequest, 1);
    await take();
    const calm = await send(moderate);
    const calmly = await take();
    const [flood, flooded] = await Promise.all([send(null), echo()]);
    const took = await take();
    let stopped: KernelTraffic | null = null;
    if (client !== null) {
      subject.hold(true);
      [, stopped] = await Promise.all([send(null), echo()]);
      subject.hold(false);
    }
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
      kernel: none === null ? { quiet: quiet!, saturated: flooded!, stopped: stopped! } : { none },
      path,
    };
  } finally {
    for (const child of children.reverse()) await child.end();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Why the kernel has no traffic over the card meanwhile; null where it has. */
function noKernelTraffic(means: Means): string | null {
  if (means.kind === "taken") return "the card's interface is gone until the card is given back";
  return means.kind === "split" ? (means.whole ?? null) : null;
}

/** Neighbours find each other, and a link that was taken down comes back. @throws E_MEASUREMENT when that takes too long */
async function reachable(client: Child): Promise<void> {
  for (let tries = 0; tries < 50; tries += 1) {
    const { answered } = await client.ask<KernelTraffic>({ seconds: 0.1 } satisfies EchoRequest, 1);
    if (answered > 0) return;
  }
  throw new BifurcateError("E_MEASUREMENT", {
    what: "measure the kernel's own traffic",
    why: "it got no answer over the card for a minute, with the user's queue quiet",
  });
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

/** The port to send into; null where packets leave by the interface at the other end of the wire. */
function sendingTo(means: Means, folder: string, meeting: number): string | null {
  if (means.kind === "vhost-user") return `virtio-user:${folder}/vm.sock`;
  return means.kind === "verbs" ? `verbs:${means.peer},peer=${LOOPBACK}:${meeting}` : null;
}

function receiving(means: Means, card: WireEnd, folder: string, meeting: number): SubjectSettings["by"] {
  switch (means.kind) {
    case "socket":
      return { kind: "socket", address: card.address, ifname: card.ifname };
    case "split":
      return {
        kind: "split",
        ifname: card.ifname,
        netns: card.netns,
        flow: means.flow,
        options: means.options,
      };
    case "function":
      return {
        kind: "split",
        ifname: card.ifname,
        netns: card.netns,
        flow: means.flow,
        options: { backend: "vf" },
      };
    case "taken": {
      const consent = protectsMemory(means.via) ? "" : ",noMemoryProtection=yes";
      return { kind: "open", spec: `pci:${means.address},via=${means.via}${consent}`, flow: flowTo(null) };
    }
    case "vhost-user":
      return { kind: "open", spec: `vhost-user:${folder}/vm.sock,server` };
    case "verbs":
      return { kind: "open", spec: `verbs:${means.card},server=${LOOPBACK}:${meeting}` };
  }
}

function lossOf(sent: Sent, counted: Counted): number {
  return sent.packets === 0 ? 0 : Math.max(0, 1 - counted.packets / sent.packets);
}
