// Flows for tests of plans: "port N", "vlan port N", "all", "long port N" (needs two rules), "odd" (has none).
import { BifurcateError } from "../errors.js";
import type { Flow } from "../steering/flow.js";
import { fakeRule } from "./fake-kernel.js";

/** struct ethtool_rx_flow_spec flow types, linux/ethtool.h. */
const UDP_V4 = 2;
const UDP_V6 = 6;

/** Compiles one of the texts above. */
export function fakeFlow(text: string): Flow {
  const port = Number(/\d+/.exec(text)?.[0] ?? 0);
  const all = text === "all";
  if (!all && text !== "odd" && port === 0) {
    throw new BifurcateError("E_FLOW_SYNTAX", { what: `read the flow '${text}'`, why: "no port" });
  }
  const types = text.startsWith("long") ? [UDP_V4, UDP_V6] : [UDP_V4];
  return {
    text,
    all,
    vlan: text.startsWith("vlan"),
    ntuple:
      all || text === "odd"
        ? { why: "a test says so" }
        : {
            rules: types.map((type) => ({
              words: `type ${type} port ${port}`,
              forQueue: (queue, location) => fakeRule(type, port, queue, location),
            })),
          },
    overlaps: (other) => all || other.all || other.text.endsWith(` ${port}`) || text === other.text,
    takes: (socket) => all || socket.localPort === port,
  };
}
