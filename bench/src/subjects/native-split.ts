// Splits a flow to the native `drop` handler for some seconds and prints packets received and process CPU time.
//
//   node bench/dist/subjects/native-split.js NETNS IFNAME af_xdp|af_packet SECONDS
import { setTimeout as sleep } from "node:timers/promises";
import { split } from "bifurcate";

const [netns = "", ifname = "", backend = "af_packet", seconds = "3"] = process.argv.slice(2);
if (backend !== "af_xdp" && backend !== "af_packet") throw new Error(`no backend '${backend}'`);
const port = await split(ifname, { netns, backend, flows: ["udp dst port 53"] });
const running = port.runNative("drop", { cores: [1] });
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
