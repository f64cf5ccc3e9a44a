// The client in Rust: its example runs as nobody, receives and answers on real traffic, and ends as PROTOCOL.md says.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BrokerPlace, NOBODY, powerless, whatIsLeft, type Running } from "../testing/broker.js";
import { buildExample } from "../testing/rust-example.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const POLICY = `
[echo]
user = ${NOBODY}
device = card0
flow = udp dst portrange 7000-7999
mechanism = port
transmit = own

[queue]
user = ${NOBODY}
device = card0
flow = udp dst portrange 8000-8999
mechanism = queue
own-queues = 0
transmit = raw
`;

interface Said {
  readonly event: string;
  readonly id: string;
  readonly pid: number;
  readonly mechanism: string;
}

describe.skipIf(reason !== null)(
  `the client in Rust${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let place: BrokerPlace;
    let broker: Running;
    let echo: string;

    beforeAll(() => {
      echo = buildExample("bifurcate-client", "echo");
    }, 600_000);
    beforeEach(async () => {
      veth = new VethPair(1);
      place = new BrokerPlace(veth.netns);
      place.write(POLICY);
      broker = await place.start();
    });
    afterEach(async () => {
      await place.remove();
      veth.remove();
    });

    async function leased(...args: string[]): Promise<{ client: Running; said: Said }> {
      const limits = ["prlimit", `--memlock=${8 << 20}:${8 << 20}`];
      // A copy that anybody may run, wherever the tree lies.
      execFileSync("cp", [echo, place.path("echo")]);
      const client = place.run([...limits, ...powerless(), place.path("echo"), veth.card, ...args], "echo");
      return { client, said: JSON.parse(await client.line('"event":"lease"')) as Said };
    }

    it("leases as nobody, answers, and gives the lease back", async () => {
      const before = whatIsLeft(place);
      await veth.serve(7777);
      const { client, said } = await leased("udp dst port 7777", "own", "50");
      const status = readFileSync(`/proc/${said.pid}/status`, "utf8");
      expect(status).toMatch(/^Uid:\s+65534\s+65534\s+65534\s+65534$/m);
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
        expect(status).toMatch(new RegExp(`^${set}:\\s+0000000000000000$`, "m"));
      }
      expect(await place.leases()).toMatchObject([
        { id: said.id, state: "granted", uid: NOBODY, pid: said.pid },
      ]);
      expect(await veth.ask(7777, 50)).toEqual({ sent: 50, answered: 50 });
      expect(await client.ended).toBe(0);
      expect(JSON.parse(client.lines.at(-1)!)).toEqual({ event: "end", received: 50, sent: 50 });
      const ended = await place.logged(({ event }) => event === "end");
      expect(ended["why"]).toBe("its client returned it");
      // The kernel's own server now.
      expect((await veth.ask(7777, 3)).answered).toBe(3);
      await place.settled(() => Promise.resolve(whatIsLeft(place).descriptors <= before.descriptors));
      await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    });

    it("uses a queue of the card's own as it uses a port", async () => {
      const { client, said } = await leased("udp dst port 8888", "raw", "20");
      expect(said.mechanism).toBe("Queue");
      expect(await veth.ask(8888, 20)).toEqual({ sent: 20, answered: 20 });
      expect(await client.ended).toBe(0);
    });

    it("goes on without a broker, tells the next one, and ends when the lease is taken back", async () => {
      const { client, said } = await leased("udp dst port 7777");
      await broker.end("SIGKILL");
      expect((await veth.ask(7777, 5)).answered).toBe(5);
      broker = await place.start();
      expect(broker.stderr).toContain("adopted 1 leases, ended 0");
      expect((await veth.ask(7777, 5)).answered).toBe(5);
      // It has connected again and stays, since it has resumed the lease: only then is it told. Nothing else shows that it
      // has.
      await place.settled(async () => {
        const before = place.connections();
        if (before.length !== 1) return false;
        await new Promise((resolve) => setTimeout(resolve, 10_000));
        const now = place.connections();
        return now.length === 1 && now[0] === before[0];
      });
      const release = place.run([process.execPath, ...place.cli("release", said.id)], "release");
      expect(await release.ended).toBe(0);
      expect(await client.ended).toBe(1);
      expect(client.stderr).toContain("E_LEASE_REVOKED");
      // In the broker's words: it was told, and has not merely lost its port.
      expect(client.stderr).toContain("took it back");
    });

    it("says in the broker's words why it gets nothing", async () => {
      execFileSync("cp", [echo, place.path("echo")]);
      const denied = place.run([...powerless(), place.path("echo"), veth.card, "tcp"], "echo");
      expect(await denied.ended).toBe(1);
      expect(denied.stderr).toContain("E_LEASE_DENIED");
      await broker.end();
      const alone = place.run([...powerless(), place.path("echo"), veth.card, "tcp"], "echo");
      expect(await alone.ended).toBe(1);
      expect(alone.stderr).toContain("E_NO_BROKER");
    });
  },
);
