// Runs the TypeScript `reflect` on our virtio driver for some seconds and prints one JSON line; before that `open`, once it
// takes packets.
//
//   node bench/dist/subjects/virtio-ts.js SOCKET SECONDS
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { open } from "bifurcate";

const socket = process.argv[2] ?? "";
const seconds = Number(process.argv[3] ?? 3);

const port = await open(`virtio-user:${socket},busyPoll`);
const running = port.run({ file: fileURLToPath(new URL("./reflect.js", import.meta.url)) });
process.stdout.write("open\n");
await sleep(3000); // the handler is compiled by then, and the far end has sent its first packets
const began = process.hrtime.bigint();
const before = port.stats;
await sleep(seconds * 1000);
const elapsed = Number(process.hrtime.bigint() - began) / 1e9;
const after = port.stats;
await port.stop();
await running;
await port.close();
process.stdout.write(`${JSON.stringify({ pps: (after.received - before.received) / elapsed })}\n`);
