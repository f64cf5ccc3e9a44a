// How much memory a lease is given: what a card's long frames take counts too, by the policy and in lists.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { LeaseRecord } from "../lease/record.js";
import { FakeKernel, fakeCard, fakeLink, type FakeCard } from "../testing/fake-kernel.js";
import type { Leases } from "./leases.js";
import { poolBytes } from "./pool.js";
import { fakeBroker, type FakeBroker } from "./testing/fake-broker.js";
import { CLIENT, LeasePlace, refusal, QUEUE_REQUEST } from "./testing/lease-place.js";

/** PROTOCOL.md: frames * frameSize, and jumboFrames * 69632, of which there are 48 a queue. */
const SHORT = 256 * 2048;
const LONG = SHORT + 48 * 69_632;

describe("the memory of a lease", () => {
  it("has frames for what is longer than one of the pool, a queue, where such may come", () => {
    expect(poolBytes(QUEUE_REQUEST, null)).toBe(SHORT);
    // The longest packet of a frame of 2,048 bytes, behind a headroom of 256 and an Ethernet header.
    expect(poolBytes(QUEUE_REQUEST, { mode: "driver", mtu: 1778 })).toBe(SHORT);
    expect(poolBytes(QUEUE_REQUEST, { mode: "driver", mtu: 1779 })).toBe(LONG);
    expect(poolBytes(QUEUE_REQUEST, { mode: "generic", mtu: 1500 })).toBe(LONG);
    const wide = { ...QUEUE_REQUEST, frameSize: 4096, queues: 3 } as const;
    expect(poolBytes(wide, { mode: "driver", mtu: 3826 })).toBe(256 * 4096);
    expect(poolBytes(wide, { mode: "driver", mtu: 3827 })).toBe(256 * 4096 + 3 * 48 * 69_632);
  });

  it("is none where the client makes its own", () => {
    expect(poolBytes({ ...QUEUE_REQUEST, mechanism: "foreign" }, { mode: "generic", mtu: 9000 })).toBe(0);
  });
});

describe("a policy", () => {
  let place: LeasePlace;
  beforeEach(() => {
    place = new LeasePlace();
  });
  afterEach(() => place.remove());

  const broker = (card: Partial<FakeCard>): FakeBroker => fakeBroker(new FakeKernel([fakeCard(card)]));

  function start(on: FakeBroker, ...memory: number[]): Leases {
    const rules = memory.map(
      (bytes, at) =>
        `[rule${at}]\nuser = 1000\ndevice = eth0\nflow = udp\nmemory = ${bytes}\nmechanism = queue\n`,
    );
    return place.start(on, rules.join("\n"));
  }

  function take(leases: Leases, port = 53): string {
    return refusal(() =>
      leases.grant(CLIENT, { ...QUEUE_REQUEST, flows: [`udp dst port ${port}`] }).sent(true),
    );
  }

  const long: [string, Partial<FakeCard>][] = [
    ["its MTU", { link: fakeLink({ mtu: 2500 }) }],
    ["generic mode", { xdpFeatures: { features: [], zeroCopyMaxSegments: 1, rxMetadata: [] } }],
  ];
  it.each(long)(
    "counts the long frames of a card, which it has by %s, and a list says the same",
    (_, card) => {
      const on = broker(card);
      const most = 2 * LONG - 1;
      const leases = start(on, most);
      expect(take(leases)).toBe("");
      expect(leases.list(CLIENT)).toMatchObject([{ memory: LONG }]);
      const said = `[rule0]: it gives ${most} bytes of memory, ${LONG} are taken, and ${LONG} are asked for`;
      expect(take(leases, 54)).toContain(said);
      expect(place.records()).toHaveLength(1);
      // The next broker counts the same, also where an older one wrote the record.
      leases.leave();
      const [file] = place.records();
      const record = join(place.places.state, file!);
      const written = JSON.parse(readFileSync(record, "utf8")) as LeaseRecord;
      writeFileSync(record, JSON.stringify({ ...written, memory: undefined }));
      on.hold(3);
      const next = start(on, most);
      expect(next.adopt()).toEqual({ adopted: 1, ended: 0 });
      expect(next.list(CLIENT)).toMatchObject([{ memory: LONG }]);
      expect(take(next, 54)).toContain(said);
      next.leave();
    },
  );

  it("gives by the first rule that has room for them", () => {
    const leases = start(broker({ link: fakeLink({ mtu: 2500 }) }), SHORT, LONG);
    expect(take(leases)).toBe("");
    expect(place.log).toContainEqual(expect.objectContaining({ event: "lease", rule: "rule1" }));
    expect(take(leases, 54)).toMatch(/^E_LEASE_DENIED: .*\[rule0\].*\[rule1\]/);
  });

  it("counts no more than the frames of a card that has none", () => {
    const leases = start(broker({}), 2 * SHORT);
    expect([take(leases), take(leases, 54)]).toEqual(["", ""]);
    expect(leases.list(CLIENT).map(({ memory }) => memory)).toEqual([SHORT, SHORT]);
  });
});
