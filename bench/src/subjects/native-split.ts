// Splits a flow to the native `drop` handler for some seconds and prints packets received and process CPU time.
//
//   node bench/dist/subjects/native-split.js NETNS IFNAME af_xdp|af_packet SECONDS
import { split } from "bifurcate";
import { printWindow } from "./window.js";

const [netns = "", ifname = "", backend = "af_packet", seconds = "3"] = process.argv.slice(2);
if (backend !== "af_xdp" && backend !== "af_packet") throw new Error(`no backend '${backend}'`);
const port = await split(ifname, { netns, backend, flows: ["udp dst port 53"] });
const running = port.runNative("drop", { cores: [1] });
await printWindow(port, running, Number(seconds));
