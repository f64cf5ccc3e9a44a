// Nothing is left: a thousand leases taken and returned, and two hundred clients killed at any moment. Ntuple rules, which
// no card here has, are counted on a model of a card: control/src/broker/own-queues.test.ts.

import { execFileSync } from "node:child_process";
import { copyFileSync, readFileSync } from "node:fs";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BrokerConnection } from "@bifurcate/control/protocol/client";
import type { LeaseRequest } from "@bifurcate/control/protocol/messages";
import { BrokerPlace, NOBODY, REQUEST, powerless, whatIsLeft } from "../testing/broker.js";
import { buildExample } from "../testing/rust-example.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const LEASES = 1000;
const CLIENTS = 200;
const AT_ONCE = 8;

/** Maps and programs of brokers in the kernel, by number: what interfaces and descriptors do not show. */
interface InKernel {
  readonly programs: ReadonlySet<number>;
  readonly maps: ReadonlySet<number>;
}

function inKernel(): InKernel {
  const ids = (kind: string): ReadonlySet<number> => {
    const shown = execFileSync("bpftool", ["-j", kind, "show"], { encoding: "utf8", maxBuffer: 2 ** 26 });
    const all = JSON.parse(shown) as { id: number; name?: string }[];
    return new Set(all.filter(({ name }) => name?.startsWith("bifurcated")).map(({ id }) => id));
  };
  return { programs: ids("prog"), maps: ids("map") };
}

/** Of a broker that serves nobody. */
const NOTHING = { programs: 0, maps: 0 };

/** How many have come since: what another broker left is let go when the kernel has the time, which is not counted. */
function come(since: InKernel): { readonly programs: number; readonly maps: number } {
  const now = inKernel();
  const fresh = (kind: keyof InKernel): number => [...now[kind]].filter((id) => !since[kind].has(id)).length;
  return { programs: fresh("programs"), maps: fresh("maps") };
}

/**
 * Network namespaces that an interface ties to the broker's: one that an outsider's port was moved to has a number there
 * until the kernel has taken it down (rtnetlink(7), RTM_GETNSID), whoever keeps it.
 */
function namespaces({ netns }: BrokerPlace): number {
  // The kernel numbers the other end of a port when it tells of the port.
  execFileSync("ip", ["-n", netns, "-br", "link"]);
  const list = execFileSync("ip", ["-n", netns, "netns", "list-id"], { encoding: "utf8" });
  return list.split("\n").filter((line) => line.startsWith("nsid")).length;
}

/** Resident memory of the broker, in MiB. */
function resident(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024;
}

/** How many mappings the broker has of memory files and of sockets' rings: a pool that stayed mapped is no descriptor. */
function mapped(pid: number): number {
  const maps = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
  return maps.filter((line) => /memfd:|socket:/.test(line)).length;
}

/** What is leased, in turns: a port that answers, or a queue of the card that is the lease's own; each with a way back. */
const KINDS = [
  { flow: "udp dst port 7001", mechanism: "port", transmit: "own", pass: true },
  { flow: "udp dst port 7002", mechanism: "port", transmit: "own", pass: false },
  { flow: "udp dst port 8001", mechanism: "queue", transmit: "raw", pass: true },
  { flow: "udp dst port 8002", mechanism: "queue", transmit: "none", pass: false },
] as const;
/** Of the clients that run at once, one that leases into namespaces of its own. */
const OUTSIDER = AT_ONCE - 1;
/** Bytes of a pool. */
const POOL = REQUEST.frames * REQUEST.frameSize;
const QUEUES = Array.from({ length: AT_ONCE }, (_, at) => at + 1).join(", ");
const POLICY = `
[port]
user = 0, ${NOBODY}
device = card0
flow = udp dst portrange 7000-7999
mechanism = port
transmit = own
pass = yes
leases = 64
memory = 1G

[queue]
user = 0, ${NOBODY}
device = card0
flow = udp dst portrange 8000-8999
mechanism = queue
# One for each of the clients that run at once.
own-queues = ${QUEUES}
transmit = raw
pass = yes
leases = 64
memory = 1G

[outsiders]
user = ${NOBODY}
device = card0
flow = udp dst portrange 9000-9999
mechanism = foreign
transmit = own
leases = 64
`;
const skipped = reason === null ? "" : ` (skipped: ${reason})`;

describe.skipIf(reason !== null)(`leaks${skipped}`, () => {
  let veth: VethPair;
  let place: BrokerPlace;
  let taking: string;
  /** What is in the kernel before this broker comes. */
  let others: InKernel;

  beforeAll(() => {
    taking = buildExample("bifurcate-client", "take");
  }, 600_000);
  beforeEach(async () => {
    veth = new VethPair(AT_ONCE + 1);
    place = new BrokerPlace(veth.netns);
    place.write(POLICY);
    // A copy that anybody may run, wherever the tree lies.
    copyFileSync(taking, place.path("take"));
    others = inKernel();
    await place.start();
  });
  afterEach(async () => {
    await place.remove();
    veth.remove();
  });

  /** Takes leases of every kind and returns them; every second four beside another lease. */
  async function take(count: number): Promise<void> {
    const broker = await BrokerConnection.connect(place.socket);
    const one = async (request: LeaseRequest): Promise<string> => {
      const { lease, memory, sockets, ways } = await broker.lease(request);
      expect(lease.mechanism).toBe(request.mechanism);
      for (const each of [memory, ...sockets, ...ways]) each.close();
      return lease.id;
    };
    let beside: string | null = null;
    for (let turn = 0; turn < count; turn++) {
      const { flow, ...kind } = KINDS[turn % KINDS.length]!;
      const stays = turn % 8 === 3;
      const last = await one({ ...REQUEST, ...kind, flows: [stays ? "udp dst port 8888" : flow] });
      if (stays) beside = last;
      else await broker.return(last);
      if (turn % 8 !== 7 || beside === null) continue;
      await broker.return(beside);
      beside = null;
    }
    broker.close();
  }

  /**
   * What is there before the first lease, and the broker's memory once Node has taken what it takes once. Nothing of a
   * lease or a client is counted: they have not come, or have gone. A broker without a lease has no program and no map;
   * those with which it tried what the kernel takes go when the kernel has the time.
   */
  async function counted() {
    await expect.poll(() => come(others), { timeout: 50_000 }).toEqual(NOTHING);
    const machine = { tied: namespaces(place), settings: veth.settings() };
    const first = { ...machine, left: whatIsLeft(place), maps: mapped(place.pid) };
    await take(48);
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await place.alone();
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(first.left);
    return { ...first, memory: resident(place.pid) };
  }

  /**
   * Waits until no lease is left, and nothing more than before: a busy kernel takes its time to let go. The broker's memory,
   * of which some is Node's heap, has not grown by that many pools.
   */
  async function settled(before: Awaited<ReturnType<typeof counted>>, pools: number): Promise<void> {
    const { left, tied, settings, maps, memory } = before;
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await place.alone();
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(left);
    await expect.poll(() => namespaces(place), { timeout: 50_000 }).toBe(tied);
    await expect.poll(() => come(others), { timeout: 50_000 }).toEqual(NOTHING);
    await expect.poll(() => veth.settings(), { timeout: 50_000 }).toBe(settings);
    await expect.poll(() => mapped(place.pid), { timeout: 50_000 }).toBe(maps);
    expect(resident(place.pid) - memory).toBeLessThan((pools * POOL) / 2 ** 20);
  }

  it(`${LEASES} leases taken and returned leave no descriptor, interface, namespace, name, record, program, map or memory`, async () => {
    const before = await counted();
    await take(LEASES);
    // What would have stayed of one of the four kinds alone.
    await settled(before, LEASES / KINDS.length);
  }, 900_000);

  it(`${CLIENTS} clients killed at any moment leave nothing either`, async () => {
    const before = await counted();
    let left = CLIENTS;
    let leased = 0;
    let most = 0;
    const command = (at: number): string[] => {
      if (at === OUTSIDER) {
        const program = ["sh", "-c", "echo leased; exec sleep 600"];
        const flow = ["--flow", `udp dst port ${9100 + at}`];
        return [process.execPath, ...place.cli("foreign", veth.card, ...flow, "--", ...program)];
      }
      const { mechanism, transmit, pass } = KINDS[at % KINDS.length]!;
      const flow = `udp dst port ${(mechanism === "port" ? 7100 : 8100) + at}`;
      return [place.path("take"), veth.card, flow, mechanism, transmit, ...(pass ? ["pass"] : [])];
    };
    const one = async (at: number): Promise<void> => {
      for (let turn = 0; left-- > 0; turn++) {
        const client = place.run([...powerless(), ...command(at)], "the client");
        if (turn % 4 !== 3) {
          // In the middle of leasing and returning; every fourth one dies on its way there.
          await client.line("leased");
          leased++;
          if (at === OUTSIDER) most = Math.max(most, namespaces(place));
        }
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 120));
        await client.end("SIGKILL");
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, (_, at) => one(at)));
    expect(leased).toBeGreaterThan(CLIENTS / 2);
    // An outsider's was counted while it was there.
    expect(most).toBeGreaterThan(before.tied);
    // What would have stayed of each client's last lease alone.
    await settled(before, CLIENTS);
  }, 900_000);
});
