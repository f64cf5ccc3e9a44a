// The npm package `cap` on the same flow for some seconds: packets delivered to its callback and process CPU time.
//
//   node bench/dist/subjects/node-cap.js FOLDER IFNAME SECONDS     (run inside the card's namespace)
import { createRequire } from "node:module";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

interface CapModule {
  readonly Cap: new () => {
    open(device: string, filter: string, size: number, buffer: Buffer): string;
    setMinBytes?(bytes: number): void;
    on(event: "packet", listener: (bytes: number, truncated: boolean) => void): void;
  };
}

const [folder = "", ifname = "", seconds = "3"] = process.argv.slice(2);
const { Cap } = createRequire(path.join(folder, "package.json"))("cap") as CapModule;
const cap = new Cap();
let packets = 0;
let bytes = 0;
cap.on("packet", (length) => {
  packets += 1;
  bytes += length;
});
// `cap` writes into this buffer without holding on to it: it must live as long as the capture does.
const buffer = Buffer.alloc(65535);
cap.open(ifname, "udp dst port 53", 10 * 1024 * 1024, buffer);
cap.setMinBytes?.(0);
await sleep(1000);
const before = packets;
const cpu = process.cpuUsage();
const began = process.hrtime.bigint();
await sleep(Number(seconds) * 1000);
const spent = process.cpuUsage(cpu);
const elapsed = Number(process.hrtime.bigint() - began) / 1e9;
const delivered = packets - before;
const line = JSON.stringify({
  packets: delivered,
  seconds: elapsed,
  cpu: (spent.user + spent.system) * 1000,
  bytes,
  held: buffer.length,
});
process.stdout.write(`${line}\n`, () => process.exit(0));
