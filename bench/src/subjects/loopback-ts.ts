// Runs the TypeScript `reflect` on the loopback device for some seconds and prints one JSON line.
//
//   node bench/dist/subjects/loopback-ts.js hot|cold SECONDS
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { open } from "bifurcate";

const order = process.argv[2] ?? "hot";
const seconds = Number(process.argv[3] ?? 3);
const frames = order === "cold" ? 65536 : 8192;

const port = await open(`loopback:order=${order},frames=${frames}`);
const running = port.run({ file: fileURLToPath(new URL("./reflect.js", import.meta.url)) });
await sleep(1000); // the handler is compiled by then
const began = process.hrtime.bigint();
const before = port.stats;
await sleep(seconds * 1000);
const elapsed = Number(process.hrtime.bigint() - began) / 1e9;
const after = port.stats;
await port.stop();
await running;
await port.close();
process.stdout.write(
  `${JSON.stringify({
    packets: after.sent - before.sent,
    received: after.received - before.received,
    seconds: elapsed,
  })}\n`,
);
