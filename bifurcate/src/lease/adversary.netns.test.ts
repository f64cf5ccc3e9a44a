// Clients that mean no good, or do not know better: the broker says what is wrong, and serves the others meanwhile.

import { fstatSync } from "node:fs";
import { release } from "node:os";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Descriptor, connectLocal, type Connection } from "@bifurcate/addon";
import {
  encode,
  LONGEST,
  type BrokerMessage,
  type ClientMessage,
} from "@bifurcate/control/protocol/messages";
import { BrokerPlace, NOBODY, opened, REQUEST, whatIsLeft } from "../testing/broker.js";
import { ECHO } from "../testing/echo.js";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

const reason = cannotRun();
/** SO_PASSRIGHTS is there since Linux 6.16: who sends descriptors is refused. */
const [major = 0, minor = 0] = release().split(".").map(Number);
const REFUSED_BY_KERNEL = major > 6 || (major === 6 && minor >= 16);
const HELLO: ClientMessage = { type: "hello", versions: [1], name: "test" };

/** A client that sends what the test says, byte for byte. */
class Raw {
  private readonly connection: Connection;

  constructor(path: string) {
    this.connection = connectLocal(path);
  }

  send(message: ClientMessage | Uint8Array | string, descriptors: Descriptor[] = []): boolean {
    const bytes =
      typeof message === "string"
        ? Buffer.from(message)
        : message instanceof Uint8Array
          ? message
          : encode(message);
    return this.connection.send(bytes, descriptors);
  }

  /** The next message; null at the end of the connection. */
  async next(): Promise<(BrokerMessage & { descriptors: Descriptor[] }) | null> {
    for (const end = Date.now() + 100_000; Date.now() < end;) {
      const got = this.connection.receive(2 ** 20);
      if (got !== null) {
        if (got.bytes === undefined || got.bytes === null) return null;
        const message = JSON.parse(Buffer.from(got.bytes).toString()) as BrokerMessage;
        return { ...message, descriptors: got.descriptors };
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error("no answer");
  }

  close(): void {
    this.connection.close();
  }
}

describe.skipIf(reason !== null)(`against${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let place: BrokerPlace;
  const open: Raw[] = [];

  beforeEach(async () => {
    veth = new VethPair();
    place = new BrokerPlace(veth.netns);
    place.write(
      `[echo]\nuser = 0, ${NOBODY}\ndevice = card0\nflow = udp dst portrange 7000-7999\n` +
        "transmit = own\npass = yes\nleases = 16\nmemory = 1G\n",
    );
    await place.start();
  });
  afterEach(async () => {
    for (const each of open.splice(0)) each.close();
    await place.remove();
    veth.remove();
  });

  function connect(): Raw {
    const raw = new Raw(place.socket);
    open.push(raw);
    return raw;
  }

  async function welcomed(): Promise<Raw> {
    const raw = connect();
    raw.send(HELLO);
    expect(await raw.next()).toMatchObject({ type: "welcome", version: 1 });
    return raw;
  }

  /** The broker answers others. */
  async function serves(): Promise<void> {
    const raw = await welcomed();
    raw.send({ type: "list", request: 5 });
    expect(await raw.next()).toMatchObject({ type: "leases", request: 5 });
    raw.close();
  }

  it.each<[string, (raw: Raw) => void, string]>([
    [
      "a first message that is not hello",
      (raw) => void raw.send({ type: "list", request: 1 }),
      "first message is hello",
    ],
    ["no JSON", (raw) => void raw.send("hello"), "not JSON"],
    ["a message cut short", (raw) => void raw.send(encode(HELLO).subarray(0, 20)), "not JSON"],
    [
      "a version nobody knows",
      (raw) => void raw.send({ ...HELLO, versions: [999] }),
      "speaks version 3, 2, 1, the client 999",
    ],
    ["a message too long", (raw) => void raw.send(Buffer.alloc(LONGEST + 1, 0x20)), "more than"],
    [
      "hello said twice",
      (raw) => {
        raw.send(HELLO);
        raw.send(HELLO);
      },
      "said once",
    ],
  ])("%s: an error that says so, and the end", async (_name, act, words) => {
    const raw = connect();
    act(raw);
    let message = await raw.next();
    if (message?.type === "welcome") message = await raw.next();
    expect(message).toMatchObject({ type: "error", request: null, error: { code: "E_BROKER_PROTOCOL" } });
    expect(JSON.stringify(message)).toContain(words);
    expect(await raw.next()).toBeNull();
    await serves();
  });

  it("descriptors in a message: not taken, so that none can keep the broker waiting when it is closed", async () => {
    const before = whatIsLeft(place);
    const giver = await welcomed();
    giver.send({ type: "lease", request: 1, lease: REQUEST });
    const granted = await giver.next();
    expect(granted).toMatchObject({ type: "granted", lease: { queues: 1, pass: true } });
    const descriptors = granted!.descriptors;
    expect(descriptors).toHaveLength(3);
    const raw = connect();
    if (REFUSED_BY_KERNEL) {
      expect(() => raw.send(HELLO, descriptors)).toThrow("EPERM");
      raw.send(HELLO);
      expect(await raw.next()).toMatchObject({ type: "welcome" });
      raw.close();
    } else {
      raw.send(HELLO, descriptors);
      expect(await raw.next()).toMatchObject({ type: "error", error: { code: "E_BROKER_PROTOCOL" } });
      expect(await raw.next()).toBeNull();
    }
    for (const each of descriptors) each.close();
    giver.close();
    await place.logged(({ event }) => event === "end");
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
  });

  it("a client that never says hello: an error that says so, and the end", async () => {
    const raw = connect();
    const message = await raw.next();
    expect(message).toMatchObject({ type: "error", request: null, error: { code: "E_BROKER_PROTOCOL" } });
    expect(JSON.stringify(message)).toContain("did not say hello");
    expect(await raw.next()).toBeNull();
  });

  it("a client that never reads: its connection and its leases end, others are served", async () => {
    const raw = await welcomed();
    try {
      for (let request = 0; request < 100_000; request++) {
        // Its own buffer is full too, now and then: the broker has its turn.
        if (!raw.send({ type: "list", request })) await new Promise((resolve) => setTimeout(resolve, 1));
        if (request % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
    } catch {
      // The broker has closed the connection.
    }
    await place.logged(({ why }) => why === "it does not read what it is sent");
    await serves();
  });

  it("a client that gave up before its request was read: what is granted then is nobody's, and ends", async () => {
    const before = whatIsLeft(place);
    process.kill(place.pid, "SIGSTOP");
    const raw = connect();
    raw.send(HELLO);
    raw.send({ type: "lease", request: 1, lease: REQUEST });
    raw.close();
    process.kill(place.pid, "SIGCONT");
    const granted = await place.logged(({ event }) => event === "lease");
    expect(granted).toMatchObject({ outcome: "done" });
    await place.logged(({ event, lease }) => event === "end" && lease === granted["lease"]);
    await serves();
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
  });

  it("a thousand connections: as many as one user may have, and the rest are told, while another user is served", async () => {
    place.file("echo.mjs", ECHO);
    const before = whatIsLeft(place).descriptors;
    let [refused, ended] = [0, 0];
    for (let at = 0; at < 1000; at++) {
      const raw = connect();
      try {
        raw.send(HELLO);
      } catch {
        ended++;
        continue;
      }
      if (at % 25 !== 0) continue;
      const message = await raw.next();
      if (message?.type === "error") {
        expect(message.error.code).toBe("E_BROKER_FULL");
        refused++;
      }
    }
    expect(refused + ended).toBeGreaterThan(20);
    await place.logged(({ event, outcome }) => event === "refuse" && outcome === "E_BROKER_FULL");
    // They are still there, and so another of their user has no place; nobody has, and a lease that works.
    await expect(place.leases()).rejects.toThrow("E_BROKER_FULL");
    const run = `run=${place.path("echo.mjs")}`;
    const other = place.client(["split", veth.card, "--flow", "udp dst port 7001", "--do", run, "--json"]);
    const { id } = await opened(other);
    expect(await veth.ask(7001, 5)).toEqual({ sent: 5, answered: 5 });
    expect(await place.leases(NOBODY)).toMatchObject([{ id, uid: NOBODY, state: "granted" }]);
    expect(await other.end("SIGINT")).toBe(0);
    for (const each of open.splice(0)) each.close();
    await place.settled(() => Promise.resolve(whatIsLeft(place).descriptors <= before));
    await serves();
  });

  it("requests for what is not there, in any order, are answered one by one", async () => {
    const raw = await welcomed();
    raw.send({ type: "return", request: 1, lease: "lease-00000000" });
    raw.send({ type: "resume", request: 2, lease: "../../etc/passwd" });
    raw.send({ type: "release", request: 3, lease: "" });
    raw.send({ type: "lease", request: 4, lease: { ...REQUEST, device: "none0" } });
    raw.send({ type: "lease", request: 5, lease: { ...REQUEST, flows: ["udp prot 5"] } });
    raw.send({ type: "list", request: 6 });
    for (const request of [1, 2, 3]) {
      expect(await raw.next()).toMatchObject({ type: "error", request, error: { code: "E_NO_SUCH_LEASE" } });
    }
    expect(await raw.next()).toMatchObject({ type: "error", request: 4, error: { code: "E_LEASE_DENIED" } });
    expect(await raw.next()).toMatchObject({ type: "error", request: 5, error: { code: "E_FLOW_SYNTAX" } });
    expect(await raw.next()).toMatchObject({ type: "leases", request: 6, leases: [] });
  });

  it("a user's number reused: the process counts that leased, and another of that number does not resume or return its lease", async () => {
    const raw = await welcomed();
    raw.send({ type: "lease", request: 1, lease: REQUEST });
    const granted = await raw.next();
    for (const each of granted?.descriptors ?? []) each.close();
    const { lease } = granted as BrokerMessage & { type: "granted" };
    expect(await place.resumeAndReturn(lease.id)).toEqual([
      "resume E_NO_SUCH_LEASE",
      "return E_NO_SUCH_LEASE",
    ]);
    expect(await place.leases()).toMatchObject([
      { id: lease.id, state: "granted", uid: 0, pid: process.pid },
    ]);
  });

  it("random bytes, thousands of times: the broker serves the others", async () => {
    let seed = 7;
    const random = (): number => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31);
    for (let round = 0; round < 300; round++) {
      const raw = new Raw(place.socket);
      const whole = encode(random() % 2 === 0 ? HELLO : { type: "lease", request: 1, lease: REQUEST });
      const bytes = Uint8Array.from(whole);
      for (let change = 0; change < 4; change++) bytes[random() % bytes.length] = random() % 256;
      try {
        if (random() % 2 === 0) raw.send(HELLO);
        raw.send(bytes);
        raw.send(bytes.subarray(0, random() % bytes.length));
      } catch {
        // The broker has closed it.
      }
      raw.close();
      if (round % 50 === 0) await serves();
    }
    await serves();
    await place.settled(() => place.leases().then((all) => all.length === 0));
  });

  it("more leases than the rule gives are denied; those that were given stay", async () => {
    const raw = await welcomed();
    for (let request = 0; request < 18; request++) {
      const flows = [`udp dst port ${7100 + request}`];
      raw.send({ type: "lease", request, lease: { ...REQUEST, pass: false, flows } });
      const message = await raw.next();
      for (const each of message?.descriptors ?? []) each.close();
      expect(message).toMatchObject(
        request < 16
          ? { type: "granted", request }
          : { type: "error", request, error: { code: "E_LEASE_DENIED" } },
      );
    }
    expect(await place.leases()).toHaveLength(16);
  });

  it("more memory than the rule gives is denied, that for the card's long frames with it", async () => {
    ip("-n", veth.netns, "link", "set", "dev", veth.card, "mtu", "2500");
    const raw = await welcomed();
    const ask = (port: number): ReturnType<Raw["next"]> => {
      const flows = [`udp dst port ${port}`];
      raw.send({ type: "lease", request: port, lease: { ...REQUEST, pass: false, flows } });
      return raw.next();
    };
    const [file, ...rest] = (await ask(7100))!.descriptors!;
    const { size } = fstatSync(file!.number);
    for (const each of [file!, ...rest]) each.close();
    expect(size).toBeGreaterThan(REQUEST.frames * REQUEST.frameSize);
    expect(await place.leases()).toMatchObject([{ memory: size }]);
    const rule = `[echo]\nuser = 0\ndevice = card0\nflow = udp\ntransmit = own\nmemory = `;
    place.write(`${rule}${2 * size - 1}\n`);
    await place.reload();
    expect(await ask(7101)).toMatchObject({ type: "error", error: { code: "E_LEASE_DENIED" } });
    place.write(`${rule}${2 * size}\n`);
    await place.reload();
    const second = await ask(7101);
    for (const each of second?.descriptors ?? []) each.close();
    expect(second).toMatchObject({ type: "granted" });
  });
});
