// A lease, from the broker to a client without any right: the DNS example answers, the kernel has everything else.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BrokerPlace, NOBODY, opened } from "../testing/broker.js";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const DNS = fileURLToPath(new URL("../../../examples/dns.ts", import.meta.url));
const POLICY = `
[dns]
user = ${NOBODY}
device = card0
flow = udp dst port 53
transmit = own
pass = yes
`;

/**
 * Asks the DNS server at the card's address, each question once; how many were answered rightly. Not by Node's resolver:
 * its c-ares gives up after 250 ms to a second on a server that has been quick (ares_metrics_server_timeout()).
 */
async function resolve(veth: VethPair, count: number): Promise<number> {
  const out = await veth.node(
    veth.peerNetns,
    `const socket = require("node:dgram").createSocket("udp4");
     const label = (text) => Buffer.concat([Buffer.of(text.length), Buffer.from(text)]);
     let asked = 0, right = 0, timer;
     const end = () => { console.log(right); process.exit(0); };
     const next = () => {
       clearTimeout(timer);
       if (asked === ${count}) return end();
       const name = ["q" + asked++ + "-1", "lookup", "bifurcate", "test"].map(label);
       const head = Buffer.from([0, asked, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
       timer = setTimeout(end, 60000);
       socket.send(Buffer.concat([head, ...name, Buffer.from([0, 0, 1, 0, 1])]), 53, "${veth.address}");
     };
     socket.on("message", (answer) => {
       if (answer[1] !== asked) return;
       if (answer.readUInt16BE(6) === 1 && answer.subarray(-4).join(".") === "192.0.2.100") right++;
       next();
     });
     next();`,
  );
  return Number(out);
}

describe.skipIf(reason !== null)(`a lease${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let place: BrokerPlace;

  beforeEach(() => {
    veth = new VethPair();
    place = new BrokerPlace(veth.netns);
    place.write(POLICY);
  });
  afterEach(async () => {
    await place.remove();
    veth.remove();
  });

  /** What `bifurcate leases` prints for that user. */
  async function listed(uid: number): Promise<string[]> {
    const leases = place.client(["leases"], uid);
    expect(await leases.ended).toBe(0);
    return leases.lines;
  }

  it("lets the DNS example answer as nobody, without a capability, beside the kernel's own traffic", async () => {
    const before = veth.settings();
    const broker = await place.start();
    await veth.serve(7000);
    const client = place.client([
      "split",
      veth.card,
      "--flow",
      "udp dst port 53",
      "--do",
      `run=${DNS}`,
      "--json",
    ]);
    const { id, pid } = await opened(client);
    expect(id).toMatch(/^lease-[0-9a-f]{8}$/);
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    expect(status).toMatch(/^Uid:\s+65534\s+65534\s+65534\s+65534$/m);
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      expect(status).toMatch(new RegExp(`^${set}:\\s+0000000000000000$`, "m"));
    }
    // The columns are as wide as what is in them.
    const title = "pid".padStart(String(pid).length);
    expect(await listed(NOBODY)).toEqual([
      `id              device   user  ${title}  transmit  pass  state    flows`,
      `${id}  card0   ${NOBODY}  ${pid}  own       no    granted  udp dst port 53`,
    ]);
    const server = place.run(["iperf3", "-s", "-1", "--forceflush"], "iperf3");
    await server.line("listening");
    const sent = place.run(
      ["iperf3", "-c", veth.address, "-t", "2", "--json"],
      "iperf3's client",
      veth.peerNetns,
    );
    expect(await resolve(veth, 20)).toBe(20);
    expect(await sent.ended).toBe(0);
    const { end } = JSON.parse(sent.lines.join("\n")) as { end: { sum_received: { bytes: number } } };
    expect(end.sum_received.bytes).toBeGreaterThan(1_000_000);
    expect(await veth.ask(7000, 5)).toEqual({ sent: 5, answered: 5 });
    expect(await veth.askTcp(7000, 5)).toEqual({ sent: 5, answered: 5 });
    await client.end("SIGINT");
    await place.logged((entry) => entry.event === "end" && entry["lease"] === id);
    expect(await listed(NOBODY)).toEqual(["there are no leases"]);
    await broker.end();
    // A program whose name is removed is let go in a work item of the kernel's.
    await expect.poll(() => veth.settings(), { timeout: 50_000 }).toBe(before);
    expect(ip("-n", veth.netns, "-br", "link", "show", "type", "veth").trim().split("\n")).toHaveLength(1);
  });

  it("polls busily where that is asked for: its client may not set it, and the broker has", async () => {
    await place.start();
    const split = ["split", veth.card, "--flow", "udp dst port 53", "--do", `run=${DNS}`, "--json"];
    for (const [more, busyPoll] of [
      [["--busy-poll"], true],
      [[], false],
    ] as const) {
      const client = place.client([...split, ...more]);
      const { path } = JSON.parse(await client.line('"event":"split"')) as { path: object };
      expect(path).toMatchObject({ steering: "lease", obtained: { busyPoll } });
      expect(await resolve(veth, 5)).toBe(5);
      expect(await client.end("SIGINT")).toBe(0);
    }
  });
});
