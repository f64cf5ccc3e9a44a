// One flow to the native `drop` handler until stdin ends. For each line of stdin it prints how many packets have come so
// far and when it looked, nanoseconds of its own clock: whoever asks twice has a rate, however late the answer comes.
//
//   node bench/dist/subjects/steady.js lease IFNAME                  from the broker that BIFURCATE_BROKER names
//   node bench/dist/subjects/steady.js in-process IFNAME FOLDER      this process is broker and client in one
//   node bench/dist/subjects/steady.js direct IFNAME                 a socket on the card itself
import path from "node:path";
import { createInterface } from "node:readline";
import { startBroker } from "@bifurcate/control/broker/start";
import { split } from "bifurcate";

const [kind = "", ifname = "", folder = ""] = process.argv.slice(2);
if (!["lease", "in-process", "direct"].includes(kind)) throw new Error(`no kind '${kind}'`);
const broker =
  kind === "in-process"
    ? startBroker({
        policy: path.join(folder, "policy"),
        socket: path.join(folder, "in-process.sock"),
        state: path.join(folder, "in-process"),
        bpffs: path.join(folder, "bpf", "in-process"),
        audit: path.join(folder, "in-process.jsonl"),
        metrics: null,
        version: "bench",
      })
    : null;
if (broker !== null) process.env["BIFURCATE_BROKER"] = path.join(folder, "in-process.sock");
const flows = ["udp dst port 53"];
const port =
  kind === "direct"
    ? await split(ifname, { flows, via: "in-process", backend: "af_xdp" })
    : await split(ifname, { flows, via: "broker", transmit: "none" });
const running = port.runNative("drop", { cores: [1] });
const say = (line: unknown): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
say({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  say({ look: Number(line), packets: port.stats.received, at: Number(process.hrtime.bigint()) });
}
await port.stop();
await running;
await port.close();
broker?.stop();
process.exit(0);
