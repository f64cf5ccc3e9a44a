// The broker's side of the protocol while the kernel takes its time for one client's card: others are served, and that
// client's answers come in order. Sockets are a model.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { BrokerMessage } from "../protocol/messages.js";
import { FakeKernel, fakeCard } from "../testing/fake-kernel.js";
import type { Connection, Listener, Locals } from "./machine.js";
import { parsePolicy } from "./policy.js";
import { Server } from "./server.js";
import { fakeBroker, type FakeBroker } from "./testing/fake-broker.js";
import { CLIENT, LeasePlace, NAMES, REQUEST } from "./testing/lease-place.js";

const POLICY = "[card]\nuser = 1000\ndevice = 0000:01:00.0\nmechanism = vfio\ntransmit = raw\n";
const CARD = {
  type: "lease",
  request: 1,
  lease: { ...REQUEST, device: "0000:01:00.0", flows: [], mechanism: "vfio", transmit: "raw" },
};

/** What the broker does later is waited for so long at most, ms. */
const WAIT_MS = 60_000;

/** One end of a connection, and what the broker does with the other. */
class FakeClient {
  readonly answers: BrokerMessage[] = [];
  closed = false;
  private readonly unread: Uint8Array[] = [];
  private ready: (() => void) | null = null;
  private over = false;

  /** @param groups Its own, and those that it is in beside. */
  constructor(private readonly groups: readonly number[] = [1000]) {}

  say(...messages: object[]): void {
    for (const each of messages) this.unread.push(Buffer.from(JSON.stringify(each)));
    this.ready?.();
  }

  /** Closes its end. */
  end(): void {
    this.over = true;
    this.ready?.();
  }

  /** The kinds of the answers, each with its request's number. */
  get kinds(): string[] {
    return this.answers.map((each) => ("request" in each ? `${each.type} ${each.request}` : each.type));
  }

  connection(): Connection {
    const [gid, ...groups] = this.groups;
    return {
      peer: () => ({ pid: process.pid, uid: 1000, gid, groups }),
      receive: () => {
        const bytes = this.unread.shift();
        if (bytes === undefined && this.over) return { bytes: null, descriptors: [], cut: false };
        return bytes === undefined ? null : { bytes, descriptors: [], cut: false };
      },
      send: (bytes: Uint8Array) => {
        if (this.closed) throw new Error("EPIPE");
        this.answers.push(JSON.parse(Buffer.from(bytes).toString()) as BrokerMessage);
        return true;
      },
      onReady: (ready: () => void) => {
        this.ready = () => {
          this.ready = null;
          ready();
        };
        if (this.unread.length > 0) queueMicrotask(() => this.ready?.());
      },
      close: () => (this.closed = true),
    } as unknown as Connection;
  }
}

describe("a broker whose kernel takes its time", () => {
  let place: LeasePlace;
  let broker: FakeBroker;
  let server: Server;
  let admit: (client: FakeClient) => void;
  let answer: () => void;

  beforeEach(() => {
    place = new LeasePlace();
    broker = fakeBroker(new FakeKernel([fakeCard()]));
    const lend = broker.kernel.lendCard;
    const kernel = new Promise<void>((resolve) => (answer = resolve));
    broker.kernel.lendCard = async (...args) => {
      await kernel;
      return lend(...args);
    };
    const waiting: FakeClient[] = [];
    let ready = (): void => undefined;
    const listener = {
      accept: () => waiting.shift()?.connection() ?? null,
      onReady: (told: () => void) => (ready = told),
      close: () => undefined,
    } as unknown as Listener;
    admit = (client) => {
      waiting.push(client);
      ready();
    };
    const machine: Locals = { ...broker.machine, listen: () => listener };
    const leases = place.start({ ...broker, machine }, POLICY);
    server = new Server(machine, leases, place.audit, { broker: "0", netns: 1 }, { all: 4, user: 2 });
    server.listen("broker.sock");
  });
  afterEach(() => {
    server.close();
    place.remove();
  });

  function connect(...groups: ConstructorParameters<typeof FakeClient>): FakeClient {
    const client = new FakeClient(...groups);
    admit(client);
    client.say({ type: "hello", versions: [3], name: "" });
    return client;
  }

  it("serves others meanwhile, and answers the one that waits in order", async () => {
    const [slow, other] = [connect(), connect()];
    slow.say(CARD, { type: "list", request: 2 });
    other.say({ type: "list", request: 1 });
    await vi.waitFor(() => expect(other.kinds).toEqual(["welcome", "leases 1"]), WAIT_MS);
    expect(other.answers[1]).toMatchObject({ leases: [{ state: "reserved", mechanism: "vfio" }] });
    expect(slow.kinds).toEqual(["welcome"]);
    answer();
    await vi.waitFor(() => expect(slow.kinds).toEqual(["welcome", "granted 1", "leases 2"]), WAIT_MS);
    expect(slow.answers[2]).toMatchObject({ leases: [{ state: "granted" }] });
  });

  it("goes by the group of who connected, and by those that it is in beside", async () => {
    server.leases.policy = parsePolicy(POLICY.replace("user = 1000", "group = 200"), "policy", NAMES);
    answer();
    for (const [groups, said] of [
      [[200], "granted 1"],
      [[1000, 5, 200], "granted 1"],
      [[1000, 5], "error 1"],
    ] as const) {
      const client = connect(groups);
      client.say(CARD);
      await vi.waitFor(() => expect(client.kinds).toEqual(["welcome", said]), WAIT_MS);
      client.end();
      expect(server.connections).toBe(0);
    }
  });

  it("ends the lease of a client that did not wait for it", async () => {
    const before = broker.left().descriptors;
    const slow = connect();
    slow.say(CARD);
    await vi.waitFor(() => expect(server.leases.list(CLIENT)).toHaveLength(1), WAIT_MS);
    slow.closed = true;
    answer();
    await vi.waitFor(() => expect(server.leases.list(CLIENT)).toEqual([]), WAIT_MS);
    expect(broker.left().descriptors).toBe(before);
    expect(place.log.at(-1)).toMatchObject({ event: "refuse", outcome: "closed" });
    expect(server.connections).toBe(0);
  });

  it("writes down who asked for what is not his, and who found no place", async () => {
    const client = connect();
    const lease = "lease-00000000";
    for (const [request, type] of ["release", "return", "resume"].entries())
      client.say({ type, request, lease });
    await vi.waitFor(
      () => expect(client.kinds).toEqual(["welcome", "error 0", "error 1", "error 2"]),
      WAIT_MS,
    );
    const who = { uid: 1000, pid: process.pid };
    expect(place.log).toMatchObject(
      ["release", "return", "resume"].map((event) => ({ event, outcome: "E_NO_SUCH_LEASE", lease, ...who })),
    );
    connect();
    const third = connect();
    await vi.waitFor(
      () => expect(third.answers).toMatchObject([{ error: { code: "E_BROKER_FULL" } }]),
      WAIT_MS,
    );
    expect(place.log.at(-1)).toMatchObject({ event: "refuse", outcome: "E_BROKER_FULL", ...who });
    expect(place.log.at(-1)!.why).toContain("user 1000 has 2 connections");
  });

  it("says what was wrong as it does of any request", async () => {
    broker.kernel.lendCard = () => Promise.reject(Object.assign(new Error("open"), { code: "EACCES" }));
    const client = connect();
    client.say(CARD, { type: "list", request: 2 });
    await vi.waitFor(() => expect(client.kinds).toEqual(["welcome", "error 1", "leases 2"]), WAIT_MS);
    expect(client.answers[1]).toMatchObject({ error: { code: "E_CARD_NOT_TAKEN" } });
  });
});
