// The kernel's own traffic during a measurement: asks the echo server about a thousand times a second, by the kernel's sockets.

import { createSocket } from "node:dgram";
import { setTimeout as delay } from "node:timers/promises";
import type { KernelTraffic } from "@bifurcate/control/compare/measurement";
import { Histogram } from "./histogram.js";
import { monotonic } from "./packet.js";
import { serve, settings } from "./serve.js";

/** Whom it asks, by which interface, and where. */
export interface EchoClientSettings {
  readonly address: string;
  readonly ifname: string;
  readonly port: number;
}

/** How long to go on. */
export interface EchoRequest {
  readonly seconds: number;
}

/** How long the last answers may take, in milliseconds. */
const LAST_MS = 200;

const { address, ifname, port } = settings<EchoClientSettings>();
const socket = createSocket("udp6");
const times = new Histogram();
let answered = 0;
/** Answers of an earlier round count for nothing. */
let round = 0;

socket.on("message", (data) => {
  if (data.length !== 16 || data.readUInt32BE(0) !== round) return;
  answered += 1;
  times.add(monotonic() - Number(data.readBigUInt64BE(8)));
});

async function ask({ seconds }: EchoRequest): Promise<KernelTraffic> {
  times.clear();
  answered = 0;
  round += 1;
  let sent = 0;
  const end = monotonic() + seconds * 1e9;
  while (monotonic() < end) {
    const data = Buffer.alloc(16);
    data.writeUInt32BE(round, 0);
    data.writeBigUInt64BE(BigInt(monotonic()), 8);
    socket.send(data, port, `${address}%${ifname}`);
    sent += 1;
    await delay(1);
  }
  await delay(LAST_MS);
  return { sent, answered, p50: times.percentile(0.5), p99: times.percentile(0.99) };
}

await serve(
  async () => {
    socket.on("error", () => undefined);
    await new Promise<void>((resolve) => socket.bind(0, resolve));
    return { tells: null, close: () => socket.close() };
  },
  (request: EchoRequest) => ask(request),
);
