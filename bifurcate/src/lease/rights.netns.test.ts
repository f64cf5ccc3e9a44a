// What a lease may and may not do on the wire: two users on one card, what is sent, what is passed, who may not even ask.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  BrokerPlace,
  ELSEWHERE,
  HANDLER,
  NOBODY,
  opened,
  OTHER,
  whatIsLeft,
  type Running,
} from "../testing/broker.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const POLICY = `
[one]
user = ${NOBODY}
device = card0
flow = udp dst port 7001
transmit = own

[two]
user = ${OTHER}
device = card0
flow = udp dst port 7002
transmit = raw
pass = yes

[slow]
user = ${OTHER}
device = card0
flow = udp dst port 7004
transmit = own
rate = 100

[quiet]
user = ${OTHER}
device = card0
flow = udp dst port 7003
`;

describe.skipIf(reason !== null)(`rights${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let place: BrokerPlace;

  beforeEach(async () => {
    veth = new VethPair();
    place = new BrokerPlace(veth.netns);
    place.write(POLICY);
    place.file("handler.mjs", HANDLER);
    await place.start();
  });
  afterEach(async () => {
    await place.remove();
    veth.remove();
  });

  function lease(uid: number, flow: string, ...more: string[]): Running {
    const run = `run=${place.path("handler.mjs")}`;
    return place.client(["split", veth.card, "--flow", flow, "--do", run, "--json", ...more], uid);
  }

  const answers = (port: number, text: string, patience = 60_000): Promise<number[]> =>
    veth.answersFrom(port, text, patience);

  /** The same, of a datagram to which no answer comes. */
  const unanswered = (port: number, text: string): Promise<number[]> => answers(port, text, 1500);

  it("two users have leases of one card, and each gets its own flow", async () => {
    const before = whatIsLeft(place);
    const [one, two] = [lease(NOBODY, "udp dst port 7001"), lease(OTHER, "udp dst port 7002")];
    await Promise.all([opened(one), opened(two)]);
    expect(await answers(7001, "a")).toEqual([7001]);
    expect(await answers(7002, "a")).toEqual([7002]);
    await one.end("SIGINT");
    expect(await unanswered(7001, "a")).toEqual([]);
    expect(await answers(7002, "a")).toEqual([7002]);
    await two.end("SIGINT");
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
  });

  it("'own' sends answers only: no other address, no other port, no fragment", async () => {
    await opened(lease(NOBODY, "udp dst port 7001"));
    expect(await answers(7001, "a")).toEqual([7001]);
    for (const text of ["m", "f", "s"]) expect(await unanswered(7001, text), text).toEqual([]);
    expect(await answers(7001, "a")).toEqual([7001]);
  });

  it("'raw' sends what it likes", async () => {
    await opened(lease(OTHER, "udp dst port 7002", "--transmit", "raw"));
    expect(await answers(7002, "s")).toEqual([9]);
  });

  it("'none' sends nothing", async () => {
    place.file("handler.mjs", HANDLER.replace("batch.send();", 'batch.send(); console.error("answered");'));
    const client = lease(OTHER, "udp dst port 7003", "--transmit", "none");
    await opened(client);
    expect(await unanswered(7003, "a")).toEqual([]);
    await client.until(() => (client.stderr.includes("answered") ? true : undefined));
    const ended = await client.end("SIGINT");
    expect(ended).toBe(0);
    const summary = JSON.parse(client.lines.at(-1)!) as { stats: { received: number; sent: number } };
    expect(summary.stats).toMatchObject({ received: 1, sent: 0 });
  });

  it("passed frames arrive as if they had just come, and nothing else does", async () => {
    await Promise.all([veth.serve(7002), veth.serve(ELSEWHERE)]);
    const client = lease(OTHER, "udp dst port 7002", "--pass");
    await opened(client);
    expect(await answers(7002, "p")).toEqual([7002]);
    // The kernel's server hears what comes to it, and not what the handler turns to it.
    expect(await answers(ELSEWHERE, "from the wire")).toEqual([ELSEWHERE]);
    expect(await unanswered(7002, "elsewhere")).toEqual([]);
    expect(await answers(7002, "pass me too")).toEqual([7002]);
    expect(await client.end("SIGINT")).toBe(0);
    const summary = JSON.parse(client.lines.at(-1)!) as { stats: { passed: number } };
    expect(summary.stats).toMatchObject({ received: 3, passed: 3 });
  });

  it("a rate limits what is sent, and nothing else", async () => {
    await opened(lease(OTHER, "udp dst port 7004"));
    const out = await veth.node(
      veth.peerNetns,
      `const socket = require("node:dgram").createSocket("udp4");
       let answered = 0, sent = 0;
       const began = process.hrtime.bigint();
       const end = () => {
         console.log(JSON.stringify({ sent, answered, seconds: Number(process.hrtime.bigint() - began) / 1e9 }));
         process.exit(0);
       };
       socket.on("message", () => answered++);
       // Until all have been sent and some are answered, and a while longer.
       const timer = setInterval(() => {
         for (let i = 0; i < 10 && sent < 500; i++, sent++) socket.send("a", 7004, "${veth.address}");
         if (sent < 500 || answered === 0) return;
         clearInterval(timer);
         setTimeout(end, 1000);
       }, 5);`,
    );
    const { sent, answered, seconds } = JSON.parse(out) as {
      sent: number;
      answered: number;
      seconds: number;
    };
    expect(sent).toBe(500);
    expect(answered).toBeGreaterThan(0);
    // One each hundredth of a second, and what a burst of 10 ms allows.
    expect(answered).toBeLessThanOrEqual(100 * seconds + 3);
  });

  it("a client that stops stalls nobody: not the kernel, not another lease", async () => {
    await veth.serve(7000);
    const [one, two] = [lease(NOBODY, "udp dst port 7001"), lease(OTHER, "udp dst port 7002")];
    const [{ pid }] = await Promise.all([opened(one), opened(two)]);
    process.kill(pid, "SIGSTOP");
    try {
      await veth.node(
        veth.peerNetns,
        `const socket = require("node:dgram").createSocket("udp4");
         let left = 20000;
         const send = () => { if (left-- === 0) return socket.close(); socket.send("a", 7001, "${veth.address}", send); };
         send();`,
      );
      expect(await answers(7002, "a")).toEqual([7002]);
      expect((await veth.ask(7000, 5)).answered).toBe(5);
    } finally {
      process.kill(pid, "SIGCONT");
    }
    // What is sent before it has emptied its ring finds no room there.
    await place.settled(() => unanswered(7001, "a").then((from) => from.includes(7001)));
  });

  it("what the policy does not give is an error when the port is opened", async () => {
    const refused: [Running, string][] = [
      [lease(NOBODY, "udp dst port 7001", "--pass"), "does not give pass"],
      [lease(NOBODY, "udp dst port 7001", "--transmit", "raw"), "not 'raw'"],
      [lease(OTHER, "udp dst port 7003"), "not 'own'"],
      [lease(NOBODY, "udp dst port 7002"), "is not within"],
      [lease(NOBODY, "all"), "is not within"],
      [lease(1, "udp dst port 7001"), "no rule"],
    ];
    for (const [client, words] of refused) {
      expect(await client.ended, words).toBe(1);
      expect(client.stderr).toContain("E_LEASE_DENIED");
      expect(client.stderr).toContain(words);
    }
    expect(
      place.log().filter(({ event, outcome }) => event === "lease" && outcome === "E_LEASE_DENIED"),
    ).toHaveLength(refused.length);
  });

  it("a rule by group gives to who is in it, as the kernel says", async () => {
    place.write(`[group]\ngroup = 4711\ndevice = card0\nflow = udp dst port 7005\ntransmit = own\n`);
    await place.reload();
    const run = `run=${place.path("handler.mjs")}`;
    const command = ["split", veth.card, "--flow", "udp dst port 7005", "--do", run, "--json"];
    const inGroups = (...groups: number[]): Running => place.client(command, OTHER, place.netns, groups);
    for (const groups of [[4711], [OTHER, 4712, 4711]]) {
      const client = inGroups(...groups);
      await opened(client);
      expect(await answers(7005, "a"), groups.join()).toEqual([7005]);
      expect(await client.end("SIGINT")).toBe(0);
    }
    const client = inGroups(OTHER, 4712);
    expect(await client.ended).toBe(1);
    expect(client.stderr).toContain("no rule");
  });

  it("a policy that is wrong is not taken on a reload, which the audit log says, and the old one holds", async () => {
    place.write("rubbish\n");
    await place.reload();
    expect(place.log().at(-1)).toMatchObject({ event: "reload", outcome: "E_POLICY" });
    expect(place.log().at(-1)!["why"]).toContain("line 1: ");
    await opened(lease(NOBODY, "udp dst port 7001"));
  });

  it("a flow that is leased is nobody else's, and whose it is stays untold", async () => {
    place.write(`${POLICY}\n[again]\nuser = ${OTHER}\ndevice = card0\nflow = udp\ntransmit = own\n`);
    await place.reload();
    await opened(lease(NOBODY, "udp dst port 7001"));
    const second = lease(OTHER, "udp dst portrange 7000-7010");
    expect(await second.ended).toBe(1);
    expect(second.stderr).toContain("E_FLOW_TAKEN");
    expect(second.stderr).not.toContain(String(NOBODY));
  });

  it("another user's lease is not there to be listed, returned, resumed or released", async () => {
    const { id } = await opened(lease(NOBODY, "udp dst port 7001"));
    expect(await place.leases(OTHER)).toEqual([]);
    const release = place.client(["release", id], OTHER);
    expect(await release.ended).toBe(1);
    expect(release.stderr).toContain("E_NO_SUCH_LEASE");
    expect(await place.resumeAndReturn(id, OTHER)).toEqual([
      "resume E_NO_SUCH_LEASE",
      "return E_NO_SUCH_LEASE",
    ]);
    expect(await place.leases(NOBODY)).toMatchObject([{ id, state: "granted" }]);
    expect(await answers(7001, "a")).toEqual([7001]);
  });
});
