// For a test: loads every rule of the corpus in each program that a broker makes of it, and says how many there were.

import { readFileSync } from "node:fs";
import {
  cardProgram,
  compile,
  ownTransmit,
  redirectProgram,
  returnProgram,
  transmitProgram,
  xdpProgram,
} from "../../steering/rules/index.js";
import { ACCEPTED } from "../../steering/rules/testing/corpus.js";
import { BifurcateError } from "../../errors.js";
import { brokerKernel } from "../machine.js";

const kernel = brokerKernel();
const map = (type: "devmap" | "xskmap" | "percpu-array" | "array", valueSize: number) =>
  kernel.createMap({ type, name: "corpus", keySize: 4, valueSize, maxEntries: 4 });
const [ports, xsks, counters] = [map("devmap", 4), map("xskmap", 4), map("percpu-array", 8)];
const bucket = map("array", 8);
const card = { mac: "02:00:00:00:00:01", addresses: ["10.0.0.1", "2001:db8::1"] };
let [rules, programs, withoutReverse] = [0, 0, 0];

const maps = { ports, sockets: xsks };

function load(source: Parameters<typeof kernel.loadProgram>[0]): void {
  kernel.loadProgram(source).close();
  programs++;
}

for (const expression of ACCEPTED) {
  const filter = compile(expression);
  rules++;
  load(xdpProgram(filter, { map: xsks }));
  load(cardProgram([{ filter, slot: 0, queues: null }], maps));
  load(cardProgram([{ filter, slot: 0, queues: [1, 3] }], maps));
  load(returnProgram(filter, 1));
  try {
    load(transmitProgram(ownTransmit([expression], card), counters, { bucket, perSecond: 1000 }));
  } catch (thrown) {
    if (!(thrown instanceof BifurcateError) || !["E_LEASE_UNSUPPORTED", "E_FLOW_NEVER"].includes(thrown.code))
      throw thrown;
    withoutReverse++;
  }
}
// All of them on one card, some at a time: no filter may depend on what stood before it.
for (let at = 0; at < ACCEPTED.length; at += 16) {
  const filters = ACCEPTED.slice(at, at + 16).map((each) => compile(each));
  load(
    cardProgram(
      filters.map((filter, slot) => ({ filter, slot: slot % 4, queues: slot % 2 === 0 ? null : [slot] })),
      maps,
    ),
  );
}
load(redirectProgram(1, true));
load(redirectProgram(null, true));
load(transmitProgram(null, counters, null));
load(transmitProgram("nothing", counters, null));
const [effective] = /^CapEff:.*$/m.exec(readFileSync("/proc/self/status", "utf8"))!;
process.stdout.write(
  `${JSON.stringify({ rules, programs, withoutReverse, effective, capabilities: kernel.capabilities() })}\n`,
);
