// Ports over verbs in the guest, on the kernel's software RDMA device (rxe): frames as datagrams between two namespaces,
// the DNS example behind them, ends and devices that go, and what rxe refuses.

import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, carrier, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { RunningSplit } from "@bifurcate/lab/harness";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { failure, shell } from "../testing/guest-split.js";

/** Room for an Ethernet frame in one datagram: rxe takes 2,048 bytes of an MTU of 2,200. */
const MTU = 2200;
/** The client's network, behind the port that connects. */
const [CARD, CLIENT] = ["198.51.100.1", "198.51.100.2"];
const MEETING = 7471;

interface Stats {
  readonly received: number;
  readonly sent: number;
  readonly invalidDescriptor: number;
  readonly deviceError: number;
  readonly ringFull: number;
  readonly tooLong: number;
}

let guest: Guest;
let wire: Wire;
const running: RunningSplit[] = [];

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  wire = await bringUp(guest, "nic2", MTU);
  await makeDevices();
  // A card with a client behind it, in the far namespace.
  const far = `ip netns exec ${wire.far.netns}`;
  await shell(
    guest,
    `ip netns add client && ${far} ip link add card type veth peer name peer netns client &&
     ${far} ip addr add ${CARD}/24 dev card && ${far} ip link set card up &&
     ip -n client addr add ${CLIENT}/24 dev peer && ip -n client link set peer up &&
     ip -n client neigh replace ${CARD} lladdr $(${far} cat /sys/class/net/card/address) dev peer nud permanent`,
  );
}, BOOT_LIMIT);

afterEach(async () => {
  for (const each of running.splice(0)) await each.end("SIGKILL");
});

afterAll(async () => {
  if (guest === undefined || wire === undefined) return;
  await shell(
    guest,
    `ip netns del client; rdma link delete rxe0; ip netns exec ${wire.far.netns} rdma link delete rxe1; true`,
  );
  await takeDown(guest, wire);
});

async function makeDevices(): Promise<void> {
  await shell(guest, `rdma link add rxe0 type rxe netdev ${wire.nic.name}`);
  await shell(guest, `ip netns exec ${wire.far.netns} rdma link add rxe1 type rxe netdev ${wire.far.name}`);
}

/** Starts a command that runs ports, here or in the far namespace. */
function start(words: readonly string[], netns?: string): RunningSplit {
  const inside = netns === undefined ? [] : ["ip", "netns", "exec", netns];
  const process = new RunningSplit(guest.start([...inside, "bifurcate", ...words, "--json"]));
  running.push(process);
  return process;
}

/** The end that listens. */
async function server(words: readonly string[], keys = ""): Promise<RunningSplit> {
  const spec = `verbs:rxe0,server=${wire.nic.v4}:${MEETING}${keys}`;
  const process = start(["open", spec, ...words]);
  await process.event("open");
  return process;
}

/** The card in the far namespace, joined to the end that connects. */
async function client(flow: string, keys = ""): Promise<RunningSplit> {
  const spec = `verbs:rxe1,peer=${wire.nic.v4}:${MEETING}${keys}`;
  const process = start(["forward", "card", spec, "--flow", flow], wire.far.netns);
  await process.event("forward");
  return process;
}

async function statsOf(process: RunningSplit, port: number | null): Promise<Stats> {
  const { status, stderr } = await process.end("SIGTERM");
  if (status !== 0) throw new Error(`it ended with ${status}: ${stderr}`);
  const end = process.events.find(({ event }) => event === "end")!;
  return port === null
    ? (end["stats"] as Stats)
    : (end["ports"] as readonly { readonly stats: Stats }[])[port]!.stats;
}

/** Waits until it has warned so. */
async function warned(process: RunningSplit, text: string): Promise<void> {
  await process.event("warning", (each) => String(each["text"]).includes(text));
}

function warnings(process: RunningSplit): string[] {
  return process.events.filter(({ event }) => event === "warning").map(({ text }) => String(text));
}

/** The addresses of a name; dig says every query that timed out first, since a handler's worker starts slowly here. */
async function dig(name: string): Promise<string[]> {
  const words = `dig +short +tries=30 +time=3 -b ${CLIENT} @${CARD} ${name} A`;
  const said = await shell(guest, `ip netns exec client ${words}`);
  return said.split("\n").filter((line) => /^[\d.]+$/.test(line));
}

describe("datagrams over rxe, between two namespaces", () => {
  it("carry the DNS example", async () => {
    const dns = await server(["--do", "run=examples/dns.ts"]);
    const card = await client("udp dst port 53");
    expect(dns.events[0]).toMatchObject({
      path: { backend: "verbs", mode: "zero-copy", steering: "none", obtained: { zeroCopy: true } },
    });
    for (let each = 0; each < 5; each++) expect(await dig("v4only.bifurcate.test")).toEqual(["192.0.2.4"]);
    expect(await dig("www.bifurcate.test")).toContain("192.0.2.80");
    const [served, carried] = [await statsOf(dns, null), await statsOf(card, 1)];
    expect(served.received).toBeGreaterThanOrEqual(6);
    expect(served.sent).toBe(served.received);
    expect([carried.sent, carried.received]).toEqual([served.received, served.sent]);
    for (const stats of [served, carried]) {
      expect(stats).toMatchObject({ invalidDescriptor: 0, deviceError: 0, ringFull: 0, tooLong: 0 });
    }
  });

  it("carry frames as long as the link has them, over several queue pairs", async () => {
    const echo = await server(["--do", "reflect"], ",queues=2");
    const card = await client("udp", ",queues=2");
    await shell(
      guest,
      `ip netns exec client sh -c 'for i in 1 2 3 4 5 6 7 8; do head -c 1472 /dev/zero | socat -b 2000 - UDP-SENDTO:${CARD}:$((4000 + i)); done'`,
    );
    // A reflected frame has the client's own addresses at its ends, and its kernel drops it: the counters tell of it.
    await card.event("rates", ({ ports }) => (ports as readonly { stats: Stats }[])[0]!.stats.sent >= 8);
    const [reflected, carried] = [await statsOf(echo, null), await statsOf(card, 1)];
    expect([reflected.received, reflected.sent]).toEqual([8, 8]);
    expect(carried).toMatchObject({ sent: 8, received: 8, invalidDescriptor: 0 });
  });

  it("an end that is killed is missed, and the next one is served", async () => {
    const dns = await server(["--do", "run=examples/dns.ts"]);
    const first = await client("udp dst port 53");
    expect(await dig("v4only.bifurcate.test")).toEqual(["192.0.2.4"]);
    await first.end("SIGKILL");
    await warned(dns, "the other end is gone");
    await client("udp dst port 53");
    expect(await dig("v4only.bifurcate.test")).toEqual(["192.0.2.4"]);
    await dns.end("SIGTERM");
    expect(warnings(dns).filter((text) => text.includes("the other end is there"))).toHaveLength(2);
  });
});

describe("a card that goes down under open ports", () => {
  it("is told of, told again when it is back, and frames flow as before", async () => {
    const { name } = wire.nic;
    const dns = await server(["--do", "run=examples/dns.ts"]);
    await client("udp dst port 53");
    expect(await dig("v4only.bifurcate.test")).toEqual(["192.0.2.4"]);
    try {
      await shell(guest, `ip link set dev ${name} down`);
      await warned(dns, "its port is down");
    } finally {
      // What the kernel forgot of its neighbours with the link it asks for again.
      await shell(guest, `ip link set dev ${name} up`);
    }
    await warned(dns, "its port is up again");
    await carrier(guest, name);
    expect(await dig("v4only.bifurcate.test")).toEqual(["192.0.2.4"]);
    const { deviceError, invalidDescriptor } = await statsOf(dns, null);
    expect([deviceError, invalidDescriptor]).toEqual([0, 0]);
  });
});

describe("what cannot be had", () => {
  it("rxe has no queue pairs of raw packets", async () => {
    const { status, code, why } = await failure(guest, ["open", "verbs:rxe0", "--flow", "udp"]);
    expect([status, code]).toEqual([77, "E_QP_REFUSED"]);
    expect(why).toMatch(/IBV_QPT_RAW_PACKET/);
  });

  it("names the devices that there are", async () => {
    const { code, why } = await failure(guest, ["open", "verbs:mlx5_7,server=127.0.0.1:0"]);
    expect(code).toBe("E_NO_RDMA_DEVICE");
    expect(why).toMatch(/there=.*rxe0/);
  });

  it("says when nobody listens", async () => {
    const { code } = await failure(guest, ["open", `verbs:rxe0,peer=${wire.nic.v4}:9`]);
    expect(code).toBe("E_SOCKET_MISSING");
  });

  it("says when locked memory is limited", async () => {
    const limited = await guest.run([
      ..."setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock sh -c".split(" "),
      "ulimit -l 64 && bifurcate open verbs:rxe0,server=127.0.0.1:0 --seconds 1 --json",
    ]);
    expect(limited.stderr).toMatch(/"code":"E_NO_MEMORY"/);
    expect(limited.stderr).toMatch(/RLIMIT_MEMLOCK/);
  });
});
