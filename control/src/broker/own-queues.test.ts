// Own queues on a card with ntuple rules, which no machine here has: held against a model of such a card. Whatever
// comes and goes in whatever order, the card is as it was when the last lease has ended.
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ownIdentity } from "../facts/processes.js";
import type { LeaseRequest } from "../protocol/messages.js";
import { FakeKernel, fakeCard, FakeRefusal, type FakeCard } from "../testing/fake-kernel.js";
import { AGAIN_MS } from "./adoption.js";
import type { Leases } from "./leases.js";
import { fakeBroker, type FakeBroker } from "./testing/fake-broker.js";
import { CLIENT, LeasePlace, refusal, QUEUE_REQUEST } from "./testing/lease-place.js";

const POLICY = `
[all]
user = 1000
device = eth0
flow = udp
transmit = raw
queues = 2
leases = 64
memory = 4G
`;

describe("own queues on a card with rules", () => {
  let place: LeasePlace;
  let card: FakeCard;
  let kernel: FakeKernel;
  let broker: FakeBroker;

  beforeEach(() => {
    place = new LeasePlace();
    fresh(fakeCard());
  });
  afterEach(() => place.remove());

  function fresh(of: FakeCard): void {
    card = of;
    kernel = new FakeKernel([card]);
    kernel.capabilityList.push("CAP_IPC_LOCK");
    broker = fakeBroker(kernel);
  }

  const start = (policy = POLICY): Leases => place.start(broker, policy);

  function take(leases: Leases, port: number, change: Partial<LeaseRequest> = {}) {
    const granting = leases.grant(CLIENT, { ...QUEUE_REQUEST, flows: [`udp dst port ${port}`], ...change });
    granting.sent(true);
    return granting.lease;
  }

  /** What a user can see of the card's settings. */
  function settings(of = card): unknown {
    const { rss, rssUser, now, rules, features } = of;
    const on = Object.entries(features).map(([name, { active }]) => [name, active]);
    return structuredClone({ rss, rssUser, now, rules: [...(rules ?? [])], on });
  }

  it("takes a queue out of the table, binds there, steers the flow, and undoes it all", () => {
    const before = settings();
    const leases = start();
    const lease = take(leases, 53);
    expect(lease).toMatchObject({ mechanism: "queue", port: "eth0", portQueues: [3], zeroCopy: true });
    expect(card.rss).not.toContain(3);
    // One for IPv4, one for IPv6.
    const steered = [...card.rules!.values()].map((rule) => Buffer.from(rule).readBigUInt64LE(152));
    expect(steered).toEqual([3n, 3n]);
    expect(broker.bound).toEqual([{ ifname: "eth0", queues: [3], zeroCopy: "prefer", transmit: false }]);
    leases.end(lease.id, "return", "done with");
    expect(settings()).toEqual(before);
    expect(broker.left()).toMatchObject({ attached: 0, maps: 0, sockets: 0, pins: 0 });
  });

  it("gives the flow back at once and the queue when its last socket is closed", async () => {
    const before = settings();
    const leases = start();
    const lease = take(leases, 53);
    broker.hold(3);
    leases.end(lease.id, "release", "an admin");
    expect(card.rules!.size).toBe(0);
    expect(leases.list(CLIENT)).toMatchObject([{ state: "draining", mechanism: "queue" }]);
    // Nobody else gets it, and the kernel's traffic does not come there, while a client could see it.
    expect(card.rss).not.toContain(3);
    expect(take(leases, 53).portQueues).toEqual([2]);
    broker.letGo(3);
    await settled(() => leases.all().length === 1);
    expect(card.rss).toContain(3);
    leases.end(leases.all()[0]!.id, "return", "done with");
    expect(settings()).toEqual(before);
  });

  it("leaves the card as it was, whatever leases come and go in whatever order", () => {
    const style = fc.constantFrom<"interleaved" | "blocks" | "weights">("interleaved", "blocks", "weights");
    const turns = fc.array(fc.tuple(fc.boolean(), fc.nat(7), fc.integer({ min: 1, max: 2 })), {
      maxLength: 14,
    });
    fc.assert(
      fc.property(style, fc.boolean(), turns, (kind, ntuple, steps) => {
        const rss = kind === "weights" ? Array.from({ length: 32 }, (_, i) => (i < 20 ? 0 : i % 4)) : null;
        const off = { active: false, requested: false, available: true, fixed: false };
        const made = fakeCard();
        const blocks = Array.from({ length: 32 }, (_, i) => Math.floor((i * 4) / 32));
        fresh({
          ...made,
          rss: rss ?? (kind === "blocks" ? blocks : made.rss),
          rssUser: kind === "weights",
          rssStyle: kind === "blocks" ? "blocks" : "interleaved",
          features: ntuple ? made.features : { ...made.features, "rx-ntuple-filter": off },
        });
        const before = settings();
        const leases = start();
        const live: { id: string; queues: readonly number[] }[] = [];
        for (const [on, which, queues] of steps) {
          if (on) {
            const said = refusal(() => {
              const { id, portQueues } = take(leases, 100 + which, { queues });
              live.push({ id, queues: portQueues });
            });
            expect(said).toMatch(/^$|^E_LEASE_UNSUPPORTED|^E_FLOW_TAKEN/);
          } else if (live.length > 0) {
            leases.end(live.splice(which % live.length, 1)[0]!.id, "return", "done with");
          }
          const taken = live.flatMap((each) => each.queues);
          expect(new Set(taken).size).toBe(taken.length);
          // The kernel's traffic stays off every queue that is leased.
          for (const queue of taken) expect(card.rss).not.toContain(queue);
          expect(card.rss!.length).toBe(32);
        }
        for (const { id } of live) leases.end(id, "death", "killed");
        // A driver's own table goes back to what a reset gives, as everywhere (docs/decisions/0021).
        const same = (value: unknown): unknown =>
          kind === "blocks" ? { ...(value as object), rss: null } : value;
        expect(same(settings())).toEqual(same(before));
        expect(broker.left()).toMatchObject({ attached: 0, maps: 0, sockets: 0, pins: 0 });
        rmSync(place.places.state, { recursive: true, force: true });
      }),
      { numRuns: 20 },
    );
  }, 180_000);

  it("leaves the card as it was when the broker is killed at any change, and the next one starts", () => {
    const off = { active: false, requested: false, available: true, fixed: false };
    for (let at = 0; ; at++) {
      const made = fakeCard();
      fresh({ ...made, features: { ...made.features, "rx-ntuple-filter": off } });
      const before = settings();
      let left = at;
      class Killed extends Error {}
      kernel.onChange = () => {
        if (left-- <= 0) throw new Killed();
      };
      let killed = false;
      const leases = start();
      // A process that is killed does nothing afterwards.
      const stop = broker.killable(() => left < 0);
      try {
        const lease = take(leases, 53);
        leases.end(lease.id, "return", "done with");
      } catch {
        killed = true;
      }
      leases.leave();
      stop();
      kernel.onChange = () => undefined;
      broker.closeSockets();
      const next = start();
      next.adopt();
      expect(settings(), `killed at change ${at}`).toEqual(before);
      expect(next.all()).toEqual([]);
      expect(broker.left(), `killed at change ${at}`).toMatchObject({
        attached: 0,
        maps: 0,
        sockets: 0,
        pins: 0,
      });
      rmSync(place.places.state, { recursive: true, force: true });
      if (!killed && left >= 0) break;
      expect(at).toBeLessThan(100);
    }
  }, 180_000);

  it("goes on under the next broker, which undoes it in the end", () => {
    const before = settings();
    const first = start();
    const lease = take(first, 53);
    broker.hold(3);
    first.leave();
    const second = start();
    expect(second.adopt()).toEqual({ adopted: 1, ended: 0 });
    expect(second.holds(lease.id, { pid: process.pid, startTime: "0" })).toBe(false);
    expect(take(second, 54).portQueues).toEqual([2]);
    broker.letGo(3);
    for (const { id } of second.all()) second.end(id, "return", "done with");
    expect(settings()).toEqual(before);
  });

  it("is free under the next broker when nobody has its sockets: they were never passed, or were closed meanwhile", () => {
    const before = settings();
    const first = start();
    first.grant(CLIENT, { ...QUEUE_REQUEST, flows: ["udp dst port 1"] });
    first.leave();
    broker.closeSockets();
    const second = start();
    expect(second.adopt()).toEqual({ adopted: 0, ended: 1 });
    expect(place.log).toContainEqual(
      expect.objectContaining({ event: "adopt", outcome: "ended", why: "nobody has its sockets" }),
    );
    expect([second.all(), place.records()]).toEqual([[], []]);
    expect(settings()).toEqual(before);
  });

  it("ends under the next broker when the kernel lets go of its sockets late, unless its client was heard of", () => {
    const before = settings();
    const first = start();
    const [lost, lives] = [take(first, 53).id, take(first, 54).id];
    first.leave();
    for (const queue of [2, 3]) broker.hold(queue);
    vi.useFakeTimers();
    try {
      const second = start();
      expect(second.adopt()).toEqual({ adopted: 2, ended: 0 });
      second.heard(lives);
      vi.advanceTimersByTime(600_000);
      expect(second.all().map(({ state }) => state)).toEqual(["granted", "granted"]);
      for (const queue of [2, 3]) broker.letGo(queue);
      vi.advanceTimersByTime(60_000);
      expect(second.all()).toMatchObject([{ id: lives, state: "granted" }]);
      const why = "nobody has its sockets";
      expect(place.log).toContainEqual(expect.objectContaining({ event: "end", lease: lost, why }));
      // Nothing looks at what has ended, nor when the broker leaves.
      second.end(lives, "return", "done with");
      expect([settings(), vi.getTimerCount()]).toEqual([before, 0]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("is adopted later when its process cannot be watched at first, and not forgotten", () => {
    const before = settings();
    const first = start();
    const { id } = take(first, 53);
    first.leave();
    broker.hold(3);
    const { process } = broker.machine;
    broker.machine.process = () => {
      throw new FakeRefusal("pidfd_open", "EMFILE");
    };
    vi.useFakeTimers();
    try {
      const second = start();
      expect(second.adopt()).toEqual({ adopted: 0, ended: 0 });
      vi.advanceTimersByTime(AGAIN_MS);
      broker.machine.process = process;
      expect(place.log).not.toContainEqual(expect.objectContaining({ event: "adopt", outcome: "done" }));
      vi.advanceTimersByTime(AGAIN_MS);
      expect(place.log).toContainEqual(expect.objectContaining({ event: "adopt", outcome: "done" }));
      expect(second.all()).toMatchObject([{ id, state: "granted" }]);
      broker.letGo(3);
      vi.advanceTimersByTime(60_000);
      expect([second.all(), settings(), vi.getTimerCount()]).toEqual([[], before, 0]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("outlives a look for which the kernel has no answer", () => {
    const first = start();
    const { id } = take(first, 53);
    first.leave();
    broker.hold(3);
    const { links } = broker.netns;
    vi.useFakeTimers();
    try {
      const second = start();
      expect(second.adopt()).toEqual({ adopted: 1, ended: 0 });
      broker.netns.links = () => {
        throw new FakeRefusal("netlink(RTM_GETLINK)", "ENOBUFS");
      };
      vi.advanceTimersByTime(600_000);
      broker.netns.links = links;
      expect(second.all()).toMatchObject([{ id, state: "granted" }]);
      second.end(id, "return", "done with");
    } finally {
      vi.useRealTimers();
    }
  });

  it("is not looked at by a broker that has left", () => {
    const first = start();
    take(first, 53);
    first.leave();
    broker.hold(3);
    vi.useFakeTimers();
    try {
      const second = start();
      expect(second.adopt()).toEqual({ adopted: 1, ended: 0 });
      second.leave();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it("counts as held while it cannot be looked at, and as free when its card is gone", async () => {
    let errno = "EMFILE";
    broker.netns.isQueueHeld = () => {
      throw new FakeRefusal("socket(AF_XDP)", errno);
    };
    const first = start();
    const { id } = take(first, 53);
    first.leave();
    const second = start();
    expect(second.adopt()).toEqual({ adopted: 1, ended: 0 });
    second.end(id, "release", "an admin");
    for (errno of ["EMFILE", "ENOMEM", "ENOBUFS", "ENETDOWN"]) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(second.all(), errno).toMatchObject([{ id, state: "draining" }]);
    }
    expect(card.rss).not.toContain(3);
    errno = "ENODEV";
    await settled(() => second.all().length === 0);
    expect(card.rss).toContain(3);
  });

  it("that the kernel has not let go of yet is waited for when its lease ends, and not by the looks that follow", async () => {
    const first = start();
    const { id } = take(first, 53);
    first.leave();
    const patience: number[] = [];
    let held: boolean | null = null;
    broker.netns.isQueueHeld = (_, queue, patienceMs) => {
      expect(queue).toBe(3);
      patience.push(patienceMs);
      return held;
    };
    const second = start();
    expect(second.adopt()).toEqual({ adopted: 1, ended: 0 });
    expect(patience).toEqual([0]);
    second.end(id, "release", "an admin");
    expect(second.all()).toMatchObject([{ id, state: "draining" }]);
    await settled(() => patience.length > 4);
    expect(patience.slice(1).filter((each) => each > 0)).toHaveLength(1);
    expect(patience[1]).toBeGreaterThan(0);
    held = false;
    await settled(() => second.all().length === 0);
    expect(card.rss).toContain(3);
  });

  it("ends nobody by end-process on a guess: who has let go may live on while that cannot be looked at", async () => {
    let kills = 0;
    const kill = (): number => kills++;
    broker.machine.process = () => ({ onEnd: () => undefined, kill, close: () => undefined }) as never;
    const leases = start(`${POLICY}draining = end-process\n`);
    const { id } = take(leases, 53);
    broker.netns.isQueueHeld = () => {
      throw new FakeRefusal("bind(AF_XDP)", "ENETDOWN");
    };
    vi.useFakeTimers();
    try {
      leases.end(id, "release", "an admin");
      vi.advanceTimersByTime(5_000);
      expect(kills).toBe(0);
      // Nobody has it, and the kernel has not let go of it yet.
      broker.netns.isQueueHeld = () => null;
      vi.advanceTimersByTime(5_000);
      expect(kills).toBe(0);
      broker.netns.isQueueHeld = () => true;
      vi.advanceTimersByTime(5_000);
      expect(kills).toBe(1);
    } finally {
      vi.useRealTimers();
    }
    leases.leave();
  });

  it("has nothing to undo after a reboot, which undid it: its record alone goes", () => {
    take(start(), 53);
    const path = join(place.places.state, place.records()[0]!);
    const record = JSON.parse(readFileSync(path, "utf8")) as object;
    writeFileSync(path, JSON.stringify({ ...record, bootId: "another boot" }));
    // What the card has now is somebody else's, even where it looks the same.
    const now = settings();
    const next = start();
    expect(next.adopt()).toEqual({ adopted: 0, ended: 1 });
    expect(settings()).toEqual(now);
    expect(place.records()).toEqual([]);
  });

  it("is not resumed by a later process of the same number and user", () => {
    const leases = start();
    const { id } = take(leases, 53);
    const { startTime } = ownIdentity();
    expect(leases.holds(id, { pid: process.pid, startTime })).toBe(true);
    expect(leases.holds(id, { pid: process.pid, startTime: `${startTime}0` })).toBe(false);
    // And a broker that starts when only that one lives adopts nothing.
    const path = join(place.places.state, `${id}.json`);
    const record = JSON.parse(readFileSync(path, "utf8")) as { client: object };
    writeFileSync(path, JSON.stringify({ ...record, client: { ...record.client, startTime: "1" } }));
    leases.leave();
    broker.closeSockets();
    expect(start().adopt()).toEqual({ adopted: 0, ended: 1 });
    expect(card.rules!.size).toBe(0);
  });

  it("needs no tcx unless it passes; where a port would need it, the version is named", () => {
    fresh(fakeCard({ ingress: { tcx: false, clsact: false, filters: [] } }));
    const leases = start(POLICY.replace("transmit = raw", "transmit = raw\npass = yes"));
    expect(take(leases, 53).mechanism).toBe("queue");
    for (const change of [{ mechanism: "port" }, { pass: true }] as const) {
      const said = refusal(() => take(leases, 54, change));
      expect(said).toMatch(/^E_KERNEL_TOO_OLD: .* lacks tcx, .* since 6\.6 /);
    }
  });

  it("leaves alone what somebody changed since, and says so", () => {
    const leases = start();
    const lease = take(leases, 53);
    card.rss = card.rss!.map(() => 1);
    leases.end(lease.id, "return", "done with");
    expect(card.rss).toEqual(card.rss!.map(() => 1));
    expect(place.log.find(({ event }) => event === "undo")).toMatchObject({
      outcome: "left",
      lease: lease.id,
    });
  });

  it("waits, and tries again, where the card refuses to be put back", async () => {
    const before = settings();
    const leases = start();
    const lease = take(leases, 53);
    let refusals = 2;
    kernel.onChange = (when, call) => {
      if (when === "before" && call === "setRss" && refusals-- > 0) throw new FakeRefusal("setRss", "EBUSY");
    };
    leases.end(lease.id, "return", "done with");
    expect(leases.all()).toMatchObject([{ state: "draining" }]);
    await settled(() => leases.all().length === 0);
    expect(settings()).toEqual(before);
    // Once for all tries.
    expect(place.log.filter(({ outcome }) => outcome === "E_UNDO_INCOMPLETE")).toHaveLength(1);
  });

  it("is refused in words where it cannot be, and a port is taken where none insisted", () => {
    const cases: [string, Partial<FakeCard>, Partial<LeaseRequest>, string][] = [
      ["no rules", { rules: null, capacity: 0 }, {}, "ice has no ntuple rules"],
      ["no table", { rss: null }, {}, "no RSS table"],
      ["'own'", {}, { transmit: "own" }, "'own' cannot be checked"],
      ["more queues than there are", {}, { queues: 4 }, "have root give the card more"],
    ];
    for (const [name, change, asked, words] of cases) {
      fresh(fakeCard(change));
      const policy = POLICY.replace("queues = 2", "queues = 8");
      const said = refusal(() => take(start(policy), 53, asked));
      expect(said, name).toContain("E_LEASE_UNSUPPORTED: no queue of its own: ");
      expect(said, name).toContain(words);
      expect(broker.bound, name).toEqual([]);
      const copied = refusal(() =>
        take(start(policy), 53, { ...asked, mechanism: "auto", zeroCopy: "require" }),
      );
      expect(copied, name).toContain("E_NO_ZERO_COPY: ");
      expect(copied, name).toContain(words);
    }
  });

  it("that root has set aside changes nothing of the card, and is zero-copy only where nothing else arrives there", () => {
    const policy = POLICY.replace("leases = 64", "leases = 64\nown-queues = 2, 3");
    const before = settings();
    const leases = start(policy);
    expect(take(leases, 53)).toMatchObject({ portQueues: [2] });
    expect(settings()).toEqual(before);
    expect(broker.bound.at(-1)).toMatchObject({ queues: [2], zeroCopy: "off" });
    card.rss = card.rss!.map((queue) => queue % 2);
    expect(take(leases, 54)).toMatchObject({ portQueues: [3] });
    expect(broker.bound.at(-1)).toMatchObject({ queues: [3], zeroCopy: "prefer" });
    expect(refusal(() => take(leases, 55))).toContain("0 are free");
  });
});

async function settled(so: () => boolean): Promise<void> {
  for (let tries = 0; tries < 3000 && !so(); tries++) await new Promise((resolve) => setTimeout(resolve, 20));
  expect(so()).toBe(true);
}
