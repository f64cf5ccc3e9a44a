// Splits a flow to a TypeScript handler for some seconds and prints packets delivered and process CPU time.
//
//   node bench/dist/subjects/node-split.js NETNS IFNAME SECONDS
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { split } from "bifurcate";

const [netns = "", ifname = "", seconds = "3"] = process.argv.slice(2);
const port = await split(ifname, { netns, flows: ["udp dst port 53"] });
const running = port.run({ file: fileURLToPath(new URL("./count.js", import.meta.url)) });
await sleep(1000);
const before = port.stats;
const cpu = process.cpuUsage();
const began = process.hrtime.bigint();
await sleep(Number(seconds) * 1000);
const spent = process.cpuUsage(cpu);
const elapsed = Number(process.hrtime.bigint() - began) / 1e9;
const after = port.stats;
await port.stop();
await running;
await port.close();
process.stdout.write(
  `${JSON.stringify({
    packets: after.received - before.received,
    seconds: elapsed,
    cpu: (spent.user + spent.system) * 1000,
  })}\n`,
);
