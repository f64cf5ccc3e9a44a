// Splits a flow to a TypeScript handler for some seconds and prints packets delivered and process CPU time.
//
//   node bench/dist/subjects/node-split.js NETNS IFNAME SECONDS
import { fileURLToPath } from "node:url";
import { split } from "bifurcate";
import { printWindow } from "./window.js";

const [netns = "", ifname = "", seconds = "3"] = process.argv.slice(2);
const port = await split(ifname, { netns, flows: ["udp dst port 53"] });
const running = port.run({ file: fileURLToPath(new URL("./count.js", import.meta.url)) });
await printWindow(port, running, Number(seconds));
