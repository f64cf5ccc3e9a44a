// The sender of a measurement: makes packets as fast as they go, or at a rate, and sends them out of one port.

import { setTimeout as delay } from "node:timers/promises";
import { pinThread } from "@bifurcate/addon";
import type { Batch } from "../batch.js";
import { open } from "../open.js";
import type { Port } from "../port.js";
import { openSender } from "../split/sender.js";
import { FRAME_BYTES, monotonic, Packet, type End } from "./packet.js";
import { serve, settings } from "./serve.js";

/** Where it sends. */
export interface SenderSettings {
  readonly from: End;
  readonly to: End;
  /** An interface, in a namespace; or a socket whose other end is listening. */
  readonly out: { readonly ifname: string; readonly netns: string | null } | { readonly spec: string };
  readonly core: number | null;
}

/** How to send. */
export interface SendRequest {
  readonly seconds: number;
  /** Packets a second; as fast as they go when null. */
  readonly rate: number | null;
  /** Whom they are addressed to. */
  readonly mac: string;
}

/** What was sent. */
export interface Sent {
  readonly packets: number;
  readonly seconds: number;
}

const { from, to, out, core } = settings<SenderSettings>();
const packet = new Packet(from, to);
let number = 0;

async function send({ seconds, rate, mac }: SendRequest, source: Port, sink: Port): Promise<Sent> {
  packet.address(mac);
  const before = sink.stats.sent;
  const began = monotonic();
  let made = 0;
  let frames: Uint8Array | null = null;
  const handle = (batch: Batch): void => {
    const { view } = batch;
    frames ??= new Uint8Array(view.buffer);
    const now = monotonic();
    let due = rate === null ? Infinity : Math.floor(((now - began) / 1e9) * rate) - made;
    while (due > 0 && batch.next()) {
      packet.write(frames, view, batch.at, number, now);
      number = (number + 1) >>> 0;
      batch.send(FRAME_BYTES, 1);
      due -= 1;
      made += 1;
    }
  };
  const end = new AbortController();
  const run = source.run(handle, { outputs: [sink], signal: end.signal });
  await delay(seconds * 1000);
  end.abort();
  await run;
  // At a rate, what found no room on its way is lost like any other; a flood is as wide as its way.
  const packets = rate === null ? sink.stats.sent - before : made;
  return { packets, seconds: (monotonic() - began) / 1e9 };
}

await serve(
  async () => {
    if (core !== null) pinThread(core);
    const source = await open(`loopback:frames=1024,length=${FRAME_BYTES}`);
    const sink = "spec" in out ? await open(out.spec) : await openSender(out.ifname, { netns: out.netns });
    return {
      tells: null,
      source,
      sink,
      close: async () => {
        await source.close();
        await sink.close();
      },
    };
  },
  (request: SendRequest, { source, sink }) => send(request, source, sink),
);
