// A client of the protocol's first version against this broker: what one of then has sent, byte for byte, and what it took
// for an answer.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connectLocal, type Connection, type Descriptor } from "@bifurcate/addon";
import { BrokerPlace, NOBODY } from "../testing/broker.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
/** Recorded with strace from a client that spoke version 1 only. */
const RECORDED = {
  hello: `{"type":"hello","versions":[1],"name":""}`,
  lease: `{"type":"lease","request":1,"lease":{"device":"card0","flows":["udp dst port 7777"],"mechanism":"auto","transmit":"own","pass":true,"queues":1,"frames":4096,"frameSize":2048,"ringSize":2048,"zeroCopy":"prefer","busyPoll":false,"pages":"auto"}}`,
  list: `{"type":"list","request":2}`,
  return: (id: string): string => `{"type":"return","request":3,"lease":"${id}"}`,
};
/** The fields that it could not do without, and the words that it knew, where it knew words. */
const GRANTED: Readonly<Record<string, string | readonly string[]>> = {
  ...{
    id: "string",
    device: "string",
    mechanism: ["port", "queue"],
    port: "string",
    mtu: "number",
    mac: "string",
  },
  ...{ queues: "number", transmit: ["none", "own", "raw"], pass: "boolean", frames: "number" },
  ...{
    frameSize: "number",
    jumboFrames: "number",
    ringSize: "number",
    filled: "number",
    zeroCopy: "boolean",
  },
  ...{ needWakeup: "boolean", multiBuffer: "boolean", busyPoll: "boolean", leftToCard: "boolean" },
  ...{ xdp: ["driver", "generic"], bypasses: "object", notes: "object" },
};
const LISTED: typeof GRANTED = {
  ...{ id: "string", state: ["free", "reserved", "granted", "revoked", "draining"], device: "string" },
  ...{ flows: "object", mechanism: ["port", "queue"], transmit: ["none", "own", "raw"], pass: "boolean" },
  ...{ uid: "number", pid: "number", memory: "number", since: "string" },
};
/** Most bytes of a message that it took. */
const LONGEST = 1_048_576;

/** What such a client would not have understood of an object; none when it is well. */
function notUnderstood(object: Record<string, unknown>, fields: typeof GRANTED): string[] {
  return Object.entries(fields)
    .filter(([name, wanted]) => {
      const value = object[name];
      return typeof wanted === "string" ? typeof value !== wanted : !wanted.includes(String(value));
    })
    .map(([name]) => name);
}

describe.skipIf(reason !== null)(`an older client${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let place: BrokerPlace;
  let connection: Connection;

  beforeEach(async () => {
    veth = new VethPair();
    place = new BrokerPlace(veth.netns);
    place.write(
      `[echo]\nuser = 0, ${NOBODY}\ndevice = card0\nflow = udp dst portrange 7000-7999\n` +
        "transmit = own\npass = yes\nleases = 4096\nmemory = 4G\n",
    );
    await place.start();
    connection = connectLocal(place.socket);
  });
  afterEach(async () => {
    connection.close();
    await place.remove();
    veth.remove();
  });

  /** Sends what was recorded and gives the answer. */
  async function ask(text: string): Promise<{ message: Record<string, unknown>; descriptors: Descriptor[] }> {
    expect(connection.send(Buffer.from(text), [])).toBe(true);
    for (;;) {
      const got = connection.receive(LONGEST);
      if (got !== null) {
        expect(got.cut).toBe(false);
        return {
          message: JSON.parse(Buffer.from(got.bytes!).toString()) as never,
          descriptors: got.descriptors,
        };
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  it("leases, lists and returns", async () => {
    const { message: welcome } = await ask(RECORDED.hello);
    expect(welcome).toMatchObject({ type: "welcome", version: 1 });
    const { message: granted, descriptors } = await ask(RECORDED.lease);
    expect(granted).toMatchObject({ type: "granted", request: 1 });
    const lease = granted["lease"] as Record<string, unknown>;
    expect(notUnderstood(lease, GRANTED)).toEqual([]);
    // The memory, a socket, a queue of the return port.
    expect(descriptors).toHaveLength(3);
    for (const each of descriptors) each.close();
    const { message: leases } = await ask(RECORDED.list);
    expect(leases).toMatchObject({ type: "leases", request: 2, leases: [{ id: lease["id"] }] });
    for (const each of leases["leases"] as never[]) expect(notUnderstood(each, LISTED)).toEqual([]);
    expect((await ask(RECORDED.return(lease["id"] as string))).message).toEqual({ type: "done", request: 3 });
  });
});
