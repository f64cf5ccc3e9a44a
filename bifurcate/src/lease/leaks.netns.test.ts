// Nothing is left: a thousand leases taken and returned, and two hundred clients killed at any moment.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BrokerConnection } from "@bifurcate/control/protocol/client";
import { BrokerPlace, NOBODY, REQUEST, powerless, whatIsLeft } from "../testing/broker.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const LEASES = 1000;
const CLIENTS = 200;
const AT_ONCE = 8;
const CLIENT = fileURLToPath(new URL("../../../control/dist/protocol/client.js", import.meta.url));

/** Leases one flow after another, and keeps none. */
const TAKING = `
  import { BrokerConnection } from ${JSON.stringify(CLIENT)};
  const broker = await BrokerConnection.connect(process.argv[2]);
  for (let turn = 0; ; turn++) {
    const lease = { ...JSON.parse(process.argv[4]), flows: ["udp dst port " + process.argv[3]] };
    const got = await broker.lease(lease);
    if (turn === 0) console.log("leased");
    for (const each of [got.memory, ...got.sockets, ...got.ways]) each.close();
    await broker.return(got.lease.id);
  }
`;

/** Maps and programs of brokers in the kernel, and its memory files: what interfaces and descriptors do not show. */
function inKernel(): { readonly programs: number; readonly maps: number } {
  const count = (kind: string): number =>
    (
      JSON.parse(execFileSync("bpftool", ["-j", kind, "show"], { encoding: "utf8", maxBuffer: 2 ** 26 })) as {
        name?: string;
      }[]
    ).filter(({ name }) => name?.startsWith("bifurcated") === true).length;
  return { programs: count("prog"), maps: count("map") };
}

/** Resident memory of the broker, in MiB. */
function resident(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024;
}

/** What is leased: a port that answers and passes, or a queue of the card that is the lease's own. */
const MECHANISMS = {
  port: {
    request: REQUEST,
    rights: "transmit = own\npass = yes\n",
  },
  queue: {
    request: { ...REQUEST, mechanism: "queue", transmit: "raw" },
    // One for each of the clients that run at once.
    rights: `transmit = raw\npass = yes\nown-queues = ${Array.from({ length: AT_ONCE }, (_, at) => at + 1).join(", ")}\n`,
  },
} as const;
const skipped = reason === null ? "" : ` (skipped: ${reason})`;

describe.skipIf(reason !== null).each(["port", "queue"] as const)(`leaks of a %s${skipped}`, (mechanism) => {
  const { request, rights } = MECHANISMS[mechanism];
  let veth: VethPair;
  let place: BrokerPlace;

  beforeEach(async () => {
    veth = new VethPair(AT_ONCE + 1);
    place = new BrokerPlace(veth.netns);
    place.write(
      `[many]\nuser = 0, ${NOBODY}\ndevice = card0\nflow = udp dst portrange 7000-7999\n` +
        `${rights}leases = 64\nmemory = 1G\n`,
    );
    place.file("taking.mjs", TAKING);
    await place.start();
  });
  afterEach(async () => {
    await place.remove();
    veth.remove();
  });

  /** Takes leases and returns them. */
  async function take(count: number): Promise<void> {
    const broker = await BrokerConnection.connect(place.socket);
    for (let turn = 0; turn < count; turn++) {
      const { lease, memory, sockets, ways } = await broker.lease(request);
      expect(lease.mechanism).toBe(mechanism);
      for (const each of [memory, ...sockets, ...ways]) each.close();
      await broker.return(lease.id);
    }
    broker.close();
  }

  it(`${LEASES} leases taken and returned leave no descriptor, interface, name, record, program, map or memory`, async () => {
    // What Node takes once, it has taken then.
    await take(50);
    await place.settled(() => place.leases().then((all) => all.length === 0));
    const [before, kernel, memory] = [whatIsLeft(place), inKernel(), resident(place.pid)];
    const settings = veth.settings();
    await take(LEASES);
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await place.settled(() => Promise.resolve(whatIsLeft(place).descriptors <= before.descriptors));
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    expect(inKernel()).toEqual(kernel);
    expect(veth.settings()).toBe(settings);
    // A pool of 512 KiB and a port that stayed, a thousand times over, would be more than half a gigabyte.
    expect(resident(place.pid) - memory).toBeLessThan(128);
  }, 900_000);

  it(`${CLIENTS} clients killed at any moment leave nothing either`, async () => {
    const [before, kernel] = [whatIsLeft(place), inKernel()];
    let left = CLIENTS;
    let leased = 0;
    const one = async (port: number): Promise<void> => {
      while (left-- > 0) {
        const command = [
          ...powerless(),
          process.execPath,
          place.path("taking.mjs"),
          place.socket,
          String(port),
          JSON.stringify(request),
        ];
        const client = place.run(command, "the client");
        if (left % 4 !== 0) {
          // In the middle of leasing and returning; every fourth one dies on its way there.
          await client.line("leased");
          leased++;
        }
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 120));
        await client.end("SIGKILL");
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, (_, at) => one(7100 + at)));
    expect(leased).toBeGreaterThan(CLIENTS / 2);
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await place.settled(() => Promise.resolve(whatIsLeft(place).descriptors <= before.descriptors));
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    expect(inKernel()).toEqual(kernel);
  }, 900_000);
});
