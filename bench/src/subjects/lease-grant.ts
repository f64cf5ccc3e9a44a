// How long a lease takes from its client's side: milliseconds of each step, one JSON line of medians.
//
//   node bench/dist/subjects/lease-grant.js IFNAME COUNT        from the broker that BIFURCATE_BROKER names
import { openLease } from "@bifurcate/addon";
import { BrokerConnection } from "@bifurcate/control/protocol/client";
import { median } from "../rows.js";

const [ifname = "", count = "50"] = process.argv.slice(2);
const steps: Record<string, number[]> = {};
let last = performance.now();
const lap = (name: string): void => {
  const now = performance.now();
  (steps[name] ??= []).push(now - last);
  last = now;
};
for (let turn = 0; turn < Number(count); turn++) {
  last = performance.now();
  const broker = await BrokerConnection.connect();
  lap("connect and hello");
  const { lease, memory, sockets, ways } = await broker.lease({
    device: ifname,
    flows: ["udp dst port 53"],
    mechanism: "auto",
    transmit: "own",
    pass: false,
    queues: 1,
    frames: 4096,
    frameSize: 2048,
    ringSize: 2048,
    zeroCopy: "prefer",
    busyPoll: false,
    pages: "auto",
  });
  lap("grant");
  const { frames, frameSize, jumboFrames, ringSize, filled, zeroCopy, multiBuffer, needWakeup } = lease;
  const { busyPoll, leftToCard, mtu } = lease;
  const options = { name: ifname, frames, frameSize, jumboFrames, ringSize, filled, transmit: true };
  const port = openLease(
    { ...options, zeroCopy, multiBuffer, needWakeup, busyPoll, leftToCard, mtu },
    sockets as never,
    memory as never,
    ways as never,
  );
  lap("map pool and rings");
  await port.close(0);
  lap("close");
  await broker.return(lease.id);
  lap("return");
  broker.close();
}
const medians = Object.entries(steps).map(([name, all]) => [name, median(all)] as const);
process.stdout.write(`${JSON.stringify(Object.fromEntries(medians))}\n`);
