// A leased flow to the native `drop` handler for some seconds: packets received and process CPU time, as one JSON line.
//
//   node bench/dist/subjects/lease.js IFNAME SECONDS            from the broker that BIFURCATE_BROKER names
//   node bench/dist/subjects/lease.js IFNAME SECONDS FOLDER     in process: this process is broker and client in one
import path from "node:path";
import { startBroker } from "@bifurcate/control/broker/start";
import { split } from "bifurcate";
import { printWindow } from "./window.js";

const [ifname = "", seconds = "3", folder] = process.argv.slice(2);
const broker =
  folder === undefined
    ? null
    : startBroker({
        policy: path.join(folder, "policy"),
        socket: path.join(folder, "in-process.sock"),
        state: path.join(folder, "in-process"),
        bpffs: path.join(folder, "bpf", "in-process"),
        audit: path.join(folder, "in-process.jsonl"),
        metrics: null,
        version: "bench",
      });
if (broker !== null) process.env["BIFURCATE_BROKER"] = path.join(folder!, "in-process.sock");
const port = await split(ifname, { flows: ["udp dst port 53"], via: "broker", transmit: "none" });
const running = port.runNative("drop", { cores: [1] });
await printWindow(port, running, Number(seconds));
broker?.stop();
process.exit(0);
