// Two ends of datagrams find each other over TCP, without any RDMA device: order, refusals, and ends that come and go.

import { connect, type Socket } from "node:net";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import type { NativeRdmaAddress } from "../native.js";
import { listen, parseHello, visit, type Meeter, type Meeting } from "./meeting.js";

/** An address of this file's own: nobody else is given a port of it that is to be listened at again. */
const HERE = "127.0.77.1";

const addressOf = (qpn: number): NativeRdmaAddress => ({
  gid: "::ffff:192.0.2.1",
  queuePairs: [qpn],
  qkey: 5,
  largest: 1024,
});

/** An end that notes what it is told to do, in order. */
class End implements Meeter {
  readonly said: string[] = [];
  readonly address: NativeRdmaAddress;
  private readonly waiting: { readonly what: string; readonly resolve: () => void }[] = [];

  constructor(
    qpn: number,
    private readonly refuses?: string,
  ) {
    this.address = addressOf(qpn);
  }

  expect(other: NativeRdmaAddress): Promise<void> {
    if (this.refuses !== undefined) return Promise.reject(new Error(this.refuses));
    this.note(`expect ${other.queuePairs.join()}`);
    return Promise.resolve();
  }

  begin(other: NativeRdmaAddress): void {
    this.note(`begin ${other.queuePairs.join()}`);
  }

  leave(why: string | null): void {
    this.note(`leave ${why ?? ""}`);
  }

  /** Resolves when it has been told what begins so. */
  until(what: string): Promise<void> {
    if (this.said.some((each) => each.startsWith(what))) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push({ what, resolve }));
  }

  private note(what: string): void {
    this.said.push(what);
    for (const each of this.waiting) if (what.startsWith(each.what)) each.resolve();
  }
}

const meetings: Meeting[] = [];
const sockets: Socket[] = [];
afterEach(() => {
  for (const meeting of meetings.splice(0)) meeting.stop();
  for (const socket of sockets.splice(0)) socket.destroy();
});

async function listening(end: End): Promise<number> {
  const meeting = await listen("open verbs:a", { address: HERE, port: 0 }, end);
  meetings.push(meeting);
  return meeting.port;
}

async function visiting(end: End, port: number): Promise<Meeting> {
  const meeting = await visit("open verbs:b", { address: HERE, port }, end);
  meetings.push(meeting);
  return meeting;
}

/** A stranger who says `text`; resolves with what it was told when it is turned away. */
function stranger(port: number, text: string): Promise<string> {
  const socket = connect(port, HERE);
  sockets.push(socket);
  socket.setEncoding("utf8").write(text);
  return new Promise((resolve) => {
    let told = "";
    socket.on("data", (chunk) => (told += String(chunk))).on("error", () => undefined);
    socket.on("close", () => resolve(told));
  });
}

describe("a meeting", () => {
  it("has each end take datagrams before the other sends any", async () => {
    const [a, b] = [new End(17), new End(18)];
    const port = await listening(a);
    await visiting(b, port);
    await a.until("begin");
    expect(a.said).toEqual(["expect 18", "begin 18"]);
    expect(b.said).toEqual(["expect 17", "begin 17"]);
  });

  it("ends with an end, and takes the next one", async () => {
    const [a, b, c] = [new End(17), new End(18), new End(19)];
    const port = await listening(a);
    (await visiting(b, port)).stop();
    await a.until("leave");
    await visiting(c, port);
    await a.until("begin 19");
    expect(a.said).toEqual(["expect 18", "begin 18", "leave ", "expect 19", "begin 19"]);
  });

  it("is kept up by the end that connects: it comes again", async () => {
    const [a, b, again] = [new End(17), new End(18), new End(20)];
    const first = await listen("open verbs:a", { address: HERE, port: 0 }, a);
    await visiting(b, first.port);
    first.stop();
    await b.until("leave");
    meetings.push(await listen("open verbs:a", { address: HERE, port: first.port }, again));
    await b.until("begin 20");
    expect(b.said.slice(-2)).toEqual(["expect 20", "begin 20"]);
  });

  it("lets a second one wait outside", async () => {
    const [a, b] = [new End(17), new End(18)];
    const port = await listening(a);
    await visiting(b, port);
    expect(await stranger(port, "")).toBe("");
    await expect(visit("open verbs:c", { address: HERE, port }, new End(19))).rejects.toMatchObject({
      code: "E_PEER_FAILED",
    });
    expect(a.said).toEqual(["expect 18", "begin 18"]);
  });

  it.each([
    ["no JSON", "hello\n", "no JSON"],
    ["nothing of ours", "{}\n", "does not say that it is a port over verbs"],
    ["a line without end", "x".repeat(5000), "does not end"],
    ["the end", "", ""],
  ])("turns away who says %s", async (_, text, why) => {
    const a = new End(17);
    const port = await listening(a);
    const ended = stranger(port, text);
    if (text === "") sockets[0]!.end();
    await ended;
    await a.until("leave");
    expect(a.said).toEqual([expect.stringContaining(why)]);
    await visiting(new End(18), port);
    await a.until("begin 18");
  });

  it("ends when one says more than it may", async () => {
    const a = new End(17);
    const port = await listening(a);
    const hello = JSON.stringify({ bifurcate: "verbs", version: 1, ...addressOf(18) });
    void stranger(port, `${hello}\nready\n`);
    await a.until("begin");
    sockets[0]!.write("more\n");
    await a.until("leave");
    expect(a.said.at(-1)).toBe("leave it said more than it may");
  });

  it("says why there is no way to the other end, on both sides", async () => {
    const [a, b] = [new End(17, "no way there"), new End(18)];
    const port = await listening(a);
    await expect(visit("open verbs:b", { address: HERE, port }, b)).rejects.toMatchObject({
      code: "E_PEER_FAILED",
      why: "it closed the connection",
    });
    await a.until("leave no way there");
  });

  it("says when nobody listens, and when somebody else does", async () => {
    const a = new End(17);
    const port = await listening(a);
    await expect(listen("open verbs:b", { address: HERE, port }, new End(18))).rejects.toMatchObject({
      code: "E_SOCKET_IN_USE",
    });
    meetings.pop()!.stop();
    await expect(visit("open verbs:b", { address: HERE, port }, new End(18))).rejects.toMatchObject({
      code: "E_SOCKET_MISSING",
    });
    await expect(
      listen("open verbs:b", { address: "192.0.2.200", port: 0 }, new End(18)),
    ).rejects.toMatchObject({ code: "E_BAD_OPTION" });
  });
});

describe("what an end says of itself", () => {
  const good = { bifurcate: "verbs", version: 1, ...addressOf(17) };
  it("is read", () => {
    expect(parseHello(JSON.stringify(good), 1)).toEqual(addressOf(17));
  });

  it.each([
    [{ version: 2 }, "version 2, not 1"],
    [{ gid: 5 }, "no address"],
    [{ gid: "x".repeat(100) }, "no address"],
    [{ qkey: -1 }, "no key"],
    [{ qkey: 2 ** 32 }, "no key"],
    [{ largest: 13 }, "how long"],
    [{ largest: 1e9 }, "how long"],
    [{ queuePairs: "17" }, "no queue pairs"],
    [{ queuePairs: [0] }, "no queue pairs"],
    [{ queuePairs: [2 ** 24] }, "no queue pairs"],
    [{ queuePairs: [1, 2] }, "2 queues, and this end 1"],
  ])("is refused with %j", (change, why) => {
    expect(() => parseHello(JSON.stringify({ ...good, ...change }), 1)).toThrow(why);
  });

  it("is never taken for anything but a whole answer", () => {
    const anyHello = fc.record(
      {
        bifurcate: fc.constant("verbs"),
        version: fc.constant(1),
        gid: fc.anything(),
        queuePairs: fc.anything(),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          anyHello.map((each) => JSON.stringify(each)),
        ),
        (line) => {
          expect(() => parseHello(line, 1)).toThrow(/^(it|its) /);
        },
      ),
    );
  });

  it.each(["null", "7", '"verbs"', "[]", "{"])("is refused when it is %s", (line) => {
    expect(() => parseHello(line, 1)).toThrow();
  });
});
