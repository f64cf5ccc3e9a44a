// A TypeScript handler on a split flow at full rate: memory once it is warm, and again at the end.
//
//   node --expose-gc bench/dist/subjects/soak.js NETNS IFNAME SECONDS
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { split } from "bifurcate";

const [netns = "", ifname = "", seconds = "60"] = process.argv.slice(2);

/** Resident memory in bytes, after a collection, so that garbage waiting for one does not count. */
function resident(): number {
  (globalThis as { gc?: () => void }).gc?.();
  return process.memoryUsage.rss();
}

const port = await split(ifname, { netns, flows: ["udp dst port 53"] });
const running = port.run({ file: fileURLToPath(new URL("./reflect.js", import.meta.url)) });
await sleep(5000);
const before = port.stats;
const start = resident();
await sleep(Number(seconds) * 1000);
const end = resident();
const after = port.stats;
await port.stop();
await running;
await port.close();
process.stdout.write(
  `${JSON.stringify({ start, end, packets: after.received - before.received, noFrames: after.noFrames })}\n`,
);
