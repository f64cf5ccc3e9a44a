// A client against a broker that is another one than it seems: what comes is checked, and nothing of it stays open.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { brokerKernel, locals, type Connection, type Descriptor, type Listener } from "../broker/machine.js";
import { BifurcateError } from "../errors.js";
import { BrokerConnection } from "./client.js";
import type { LeaseRequest } from "./messages.js";

const REQUEST: LeaseRequest = {
  ...{ device: "eth0", flows: ["udp"], mechanism: "auto", transmit: "own", pass: true, queues: 2 },
  ...{ frames: 64, frameSize: 2048, ringSize: 64, zeroCopy: "off", busyPoll: false, pages: "auto" },
};
const GRANTED = {
  ...{ id: "lease-00000001", device: "eth0", mechanism: "port", port: "bff00000001", mtu: 1500 },
  ...{ mac: "02:00:00:00:00:01", queues: 2, transmit: "own", pass: true, frames: 64, frameSize: 2048 },
  ...{ jumboFrames: 0, ringSize: 64, filled: 16, zeroCopy: false, needWakeup: true, multiBuffer: false },
  ...{ busyPoll: false, leftToCard: true, xdp: "driver", bypasses: [], notes: [] },
};
const MEMORY = { iova: 2 ** 32, ringsAt: 2 ** 21, ringBytes: 2 ** 21 };
const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

const root = process.getuid?.() === 0;

describe.skipIf(!root)(`a client${root ? "" : " (skipped: needs root to make descriptors of a TAP)"}`, () => {
  const netns = `bfclient${process.pid}`;
  /** Descriptors to send: what they are, a client asks the kernel later. */
  let files: readonly Descriptor[];
  let folder: string;
  let listener: Listener;
  let path: string;
  const open: { close(): void }[] = [];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bifurcate-client-"));
    path = join(folder, "broker.sock");
    execFileSync("ip", ["netns", "add", netns]);
    const there = brokerKernel().openNetns(netns);
    files = there.createTap("bftap", 6).queues;
    open.push(there, ...files);
    listener = locals().listen(path);
    open.push(listener);
  });
  afterEach(() => {
    for (const each of open.splice(0)) each.close();
    execFileSync("ip", ["netns", "delete", netns]);
    rmSync(folder, { recursive: true, force: true });
  });

  /** Answers each message of the next client with what `answer` gives for it. */
  function serve(answer: (message: { type: string; request?: number }, to: Connection) => void): void {
    listener.onReady(() => {
      const connection = listener.accept()!;
      open.push(connection);
      const next = (): void => {
        const got = connection.receive(65_536);
        if (got?.bytes != null) answer(JSON.parse(Buffer.from(got.bytes).toString()) as never, connection);
        if (got === null || got.bytes != null) connection.onReady(next, false);
      };
      connection.onReady(next, false);
    });
  }

  const say = (to: Connection, message: object, descriptors: readonly Descriptor[] = []): void =>
    void to.send(Buffer.from(JSON.stringify(message)), descriptors as never);
  const welcome = { type: "welcome", version: 1, broker: "0.0.0", pid: 1, netns: 1 };

  async function codeOf(work: Promise<unknown>): Promise<string> {
    try {
      await work;
    } catch (thrown) {
      if (thrown instanceof BifurcateError) return `${thrown.code}: ${thrown.why}`;
      throw thrown;
    }
    return "";
  }

  it("refuses a lease with too many or too few descriptors, and closes those that came", async () => {
    for (const [count, right] of [
      [0, false],
      [4, false],
      [6, false],
      [5, true],
    ] as const) {
      serve(({ type, request }, to) => {
        if (type === "hello") return say(to, welcome);
        say(to, { type: "granted", request, lease: GRANTED }, files.slice(0, count));
      });
      const broker = await BrokerConnection.connect(path);
      const before = openDescriptors();
      const said = await codeOf(
        broker.lease(REQUEST).then(({ memory, sockets, ways }) => {
          expect([sockets.length, ways.length]).toEqual([2, 2]);
          for (const each of [memory, ...sockets, ...ways]) each.close();
        }),
      );
      expect(said).toBe(right ? "" : `E_BROKER_PROTOCOL: ${count} descriptors came with a lease of 2 queues`);
      await expect.poll(openDescriptors, { timeout: 50_000 }).toBe(before);
      broker.close();
    }
  });

  for (const { what, mechanism, card, ask } of [
    { what: "an outsider's lease", mechanism: "foreign", card: {}, ask: "leaseForeign" },
    { what: "a card", mechanism: "vfio", card: { card: MEMORY }, ask: "leaseCard" },
  ] as const) {
    const granted = { ...GRANTED, ...card, mechanism, queues: 1, pass: false };

    /** What a client that asks for it makes of this answer, and that nothing of the answer stays open. */
    async function made(answer: object, count: number): Promise<string> {
      serve(({ type, request }, to) => {
        if (type === "hello") return say(to, { ...welcome, version: 3 });
        say(to, { ...answer, request }, files.slice(0, count));
      });
      const broker = await BrokerConnection.connect(path);
      const before = openDescriptors();
      const asked = async (): Promise<void> => {
        const { lease, ...came } = await broker[ask](REQUEST);
        expect(lease.mechanism).toBe(mechanism);
        const two = Object.values(came) as Descriptor[];
        expect(new Set(two.map(({ number }) => number)).size).toBe(2);
        for (const each of two) each.close();
      };
      const said = await codeOf(asked());
      const message = `${count} of ${JSON.stringify(answer)}`;
      await expect.poll(openDescriptors, { timeout: 50_000, message }).toBe(before);
      broker.close();
      return said;
    }

    it(`refuses ${what} with too many or too few descriptors, and closes those that came`, async () => {
      expect(await made({ type: "granted", lease: granted }, 2)).toBe("");
      for (const count of [0, 1, 3, 6]) {
        expect(await made({ type: "granted", lease: granted }, count)).toBe(
          `E_BROKER_PROTOCOL: it answered with 'granted' and ${count} descriptors`,
        );
      }
    });

    it(`refuses what is not ${what} with as many descriptors, and closes them`, async () => {
      for (const answer of [{ type: "granted", lease: GRANTED }, { type: "done" }]) {
        expect(await made(answer, 2)).toMatch(/^E_BROKER_PROTOCOL: it answered with/);
      }
    });
  }

  it("does not wait for the answer of a broker that has gone", async () => {
    serve(({ type }, to) => {
      if (type === "hello") say(to, welcome);
      else setImmediate(() => to.close());
    });
    const broker = await BrokerConnection.connect(path);
    let closed = false;
    broker.follow({ revoked: () => undefined, closed: () => void (closed = true) });
    expect(await codeOf(broker.return("lease-00000001"))).toMatch(/^E_NO_BROKER/);
    expect(closed).toBe(true);
    for (const again of [broker.return("lease-00000001"), broker.list(), broker.lease(REQUEST)]) {
      expect(await codeOf(again)).toBe("E_NO_BROKER: the connection is closed");
    }
  });

  describe("hears what is read in one go with the answer before it", () => {
    const REVOKED = { type: "revoked", lease: GRANTED.id, why: "root took it back" };

    /** What whoever holds the lease hears, who listens when it has been answered. */
    function heardBy(broker: BrokerConnection): string[] {
      const heard: string[] = [];
      const revoked = (lease: string, why: string): void => void heard.push(`${lease}: ${why}`);
      broker.follow({ revoked, closed: () => void heard.push("closed") });
      return heard;
    }

    it("that a lease was taken back as soon as it was resumed", async () => {
      serve(({ type, request }, to) => {
        if (type === "hello") return say(to, welcome);
        say(to, { type: "done", request });
        say(to, REVOKED);
      });
      const broker = await BrokerConnection.connect(path);
      await broker.resume(GRANTED.id);
      const heard = heardBy(broker);
      await expect.poll(() => heard, { timeout: 50_000 }).toEqual([`${GRANTED.id}: root took it back`]);
      broker.close();
    });

    it("that the broker ended as soon as it had said that it knows the lease", async () => {
      serve(({ type, request }, to) => {
        if (type === "hello") return say(to, welcome);
        say(to, { type: "done", request });
        say(to, REVOKED);
        // When this function's caller waits for the next message already, and before the client has read these.
        queueMicrotask(() => to.close());
      });
      const broker = await BrokerConnection.connect(path);
      await broker.resume(GRANTED.id);
      const heard = heardBy(broker);
      await expect
        .poll(() => heard, { timeout: 50_000 })
        .toEqual([`${GRANTED.id}: root took it back`, "closed"]);
      expect(await codeOf(broker.list())).toBe("E_NO_BROKER: the connection is closed");
      expect(heard).toHaveLength(2);
    });

    it("that a lease was taken back as soon as it was granted", async () => {
      serve(({ type, request }, to) => {
        if (type === "hello") return say(to, welcome);
        say(to, { type: "granted", request, lease: GRANTED }, files.slice(0, 5));
        say(to, REVOKED);
      });
      const broker = await BrokerConnection.connect(path);
      const { memory, sockets, ways } = await broker.lease(REQUEST);
      for (const each of [memory, ...sockets, ...ways]) each.close();
      const heard = heardBy(broker);
      await expect.poll(() => heard, { timeout: 50_000 }).toEqual([`${GRANTED.id}: root took it back`]);
      broker.close();
    });

    it("but not without end what nobody listens to", async () => {
      serve(({ type }, to) => {
        if (type === "hello") return say(to, welcome);
        // What the socket has no room for is lost: in portions, until the client has had enough and closed.
        const portion = (from: number): void => {
          try {
            for (let at = from; at < from + 5; at++) say(to, { ...REVOKED, lease: `lease-${at}` });
            setImmediate(portion, from + 5);
          } catch {
            // It has.
          }
        };
        portion(0);
      });
      const broker = await BrokerConnection.connect(path);
      const said = await codeOf(broker.resume(GRANTED.id));
      expect(said).toBe("E_BROKER_PROTOCOL: it takes back more leases than it gave");
    });
  });

  it("waits for what it asks, but for ever only where the lease would end with the connection", async () => {
    const unanswered: (() => void)[] = [];
    const answer = (message: { type: string; request?: number }, to: Connection): void => {
      if (message.type === "hello") return say(to, welcome);
      unanswered.push(() => say(to, { type: "done", request: message.request }));
    };
    serve(answer);
    const broker = await BrokerConnection.connect(path);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      const resumed = broker.resume("lease-00000001");
      await expect.poll(() => unanswered, { timeout: 50_000 }).toHaveLength(1);
      await vi.advanceTimersByTimeAsync(3_600_000);
      unanswered[0]!();
      await resumed;
      const late = codeOf(broker.return("lease-00000001"));
      await vi.advanceTimersByTimeAsync(30_000);
      expect(await late).toBe("E_BROKER_PROTOCOL: it did not answer within 30 s");
      // With less time the same; but the broker is asked, and may do it when it goes on.
      serve(answer);
      const hurried = await BrokerConnection.connect(path);
      const given = codeOf(hurried.return("lease-00000001", 2_000));
      await vi.advanceTimersByTimeAsync(2_000);
      expect(await given).toBe("E_BROKER_PROTOCOL: it did not answer within 2 s");
      await expect.poll(() => unanswered, { timeout: 50_000 }).toHaveLength(3);
    } finally {
      vi.useRealTimers();
    }
  });

  it("says what the broker said before it closed, also where it asks into the closed connection", async () => {
    const why = "user 0 has 128 connections";
    const error = new BifurcateError("E_BROKER_FULL", { what: "connect to the broker", why }).toJSON();
    for (const words of [{ type: "error", request: null, ...error }, null]) {
      let there: Connection;
      serve((_, to) => say((there = to), welcome));
      const broker = await BrokerConnection.connect(path);
      // Within one turn of the event loop: the client has not read it yet.
      if (words !== null) say(there!, words);
      there!.close();
      const code = await codeOf(broker.list());
      if (words === null) expect(code).toBe("E_NO_BROKER: it closed the connection");
      else expect(code).toBe(`E_BROKER_FULL: ${why}`);
    }
  });

  it("takes an older broker's words, which lack what came since", async () => {
    serve(({ type, request }, to) => {
      if (type === "hello") return say(to, welcome);
      say(to, { type: "granted", request, lease: GRANTED }, files.slice(0, 5));
    });
    const broker = await BrokerConnection.connect(path);
    const { lease, memory, sockets, ways } = await broker.lease(REQUEST);
    expect(lease.portQueues).toEqual([0, 1]);
    for (const each of [memory, ...sockets, ...ways]) each.close();
    broker.close();
  });
});
