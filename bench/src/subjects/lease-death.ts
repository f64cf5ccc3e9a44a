// From the kill of a lease's client to the first datagram of its flow in the kernel: datagrams come all the time, and
// the kernel's own socket hears them when nobody else has them. One JSON line of milliseconds.
//
//   node bench/dist/subjects/lease-death.js COUNT CLIENT...     CLIENT...: the command that leases udp port 53, and says "ready"
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { median } from "../rows.js";

/** That long without a datagram, ms: the flow is the client's. */
const QUIET = 100;

const [count = "", command = "", ...args] = process.argv.slice(2);
const server = createSocket({ type: "udp4", recvBufferSize: 4096 });
let heard = performance.now();
server.on("message", () => (heard = performance.now()));
server.bind(53);
await once(server, "listening");
const took: number[] = [];
for (let turn = 0; turn < Number(count); turn++) {
  // Before a client comes the datagrams do: else there would be nothing to be heard of afterwards.
  await once(server, "message");
  const client = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(client, "exit");
  const ready = await Promise.race([once(client.stdout, "data"), ended.then(() => null)]);
  if (ready === null) throw new Error("the client ended before it had its lease");
  while (performance.now() - heard < QUIET) await sleep(QUIET);
  const killed = performance.now();
  client.kill("SIGKILL");
  await once(server, "message");
  took.push(performance.now() - killed);
  await ended;
}
server.close();
const { min, max } = Math;
const result = { median: median(took), least: min(...took), most: max(...took) };
process.stdout.write(`${JSON.stringify(result)}\n`);
