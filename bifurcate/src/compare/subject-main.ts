// The program of a measurement: receives the flow by one mechanism, counts, and looks at the time of sending of each packet.

import { createSocket, type Socket } from "node:dgram";
import { pinThread } from "@bifurcate/addon";
import type { Batch } from "../batch.js";
import { open } from "../open.js";
import type { Port } from "../port.js";
import { split } from "../split/split.js";
import type { SplitOptions } from "../split/options.js";
import { Histogram } from "./histogram.js";
import { FLOW_PORT, isOurs, monotonic, PAYLOAD_AT, sentAt } from "./packet.js";
import { serve, settings } from "./serve.js";

/** How it receives. */
export interface SubjectSettings {
  readonly by:
    | { readonly kind: "socket"; readonly address: string; readonly ifname: string }
    | {
        readonly kind: "split";
        readonly ifname: string;
        readonly netns: string | null;
        readonly flow: string;
        readonly options: Partial<SplitOptions>;
      }
    | { readonly kind: "open"; readonly spec: string; readonly flow?: string };
  readonly core: number | null;
}

/** What it counted since the last time it was asked. */
export interface Counted {
  readonly packets: number;
  /** Nanoseconds of CPU time of the whole process. */
  readonly cpu: number;
  readonly seconds: number;
  /** Microseconds from sending until the program looks. */
  readonly p50: number | null;
  readonly p99: number | null;
}

const { by, core } = settings<SubjectSettings>();
const times = new Histogram();
let packets = 0;
let since = { cpu: process.cpuUsage(), at: monotonic() };

function take(): Counted {
  const now = monotonic();
  const { user, system } = process.cpuUsage(since.cpu);
  const counted = {
    packets,
    cpu: (user + system) * 1000,
    seconds: (now - since.at) / 1e9,
    p50: times.percentile(0.5),
    p99: times.percentile(0.99),
  };
  packets = 0;
  times.clear();
  since = { cpu: process.cpuUsage(), at: now };
  return counted;
}

function handle(batch: Batch): void {
  const { view } = batch;
  const now = monotonic();
  while (batch.next()) {
    if (!isOurs(view, batch.at, batch.size)) continue;
    packets += 1;
    times.add(now - sentAt(view, batch.at + PAYLOAD_AT));
  }
}

/** The baseline: a socket of node:dgram, which tells of each datagram by an event. */
async function socket(address: string, ifname: string): Promise<Socket> {
  const made = createSocket({ type: "udp6" });
  made.on("message", (data) => {
    packets += 1;
    times.add(monotonic() - sentAt(new DataView(data.buffer, data.byteOffset, data.length), 0));
  });
  await new Promise<void>((resolve, reject) => {
    made.once("error", reject);
    made.bind(FLOW_PORT, `${address}%${ifname}`, resolve);
  });
  return made;
}

function describe({ path }: Port): string {
  const xdp =
    path.xdp === null ? "" : `, XDP in ${path.xdp === "driver" ? "the driver" : "the generic place"}`;
  // What a socket notes is its path, which is gone with the measurement.
  const notes = by.kind === "open" || path.notes.length === 0 ? "" : `; ${path.notes.join("; ")}`;
  return `${path.backend}, ${path.mode}${xdp}, queue ${path.queues.join(" and ")}${notes}`;
}

await serve(
  async () => {
    if (core !== null) pinThread(core);
    if (by.kind === "socket") {
      const made = await socket(by.address, by.ifname);
      return { tells: "a socket of node:dgram, an event for each datagram", close: () => made.close() };
    }
    const port =
      by.kind === "open"
        ? await open(by.spec, by.flow === undefined ? {} : { flows: [by.flow] })
        : await split(by.ifname, {
            ...by.options,
            netns: by.netns,
            flows: [by.flow],
            via: "in-process",
            pass: false,
          });
    const run = port.run(handle);
    run.catch(() => process.exit(1));
    return { tells: describe(port), close: () => port.close() };
  },
  () => take(),
);
