// Leases of a broker whose folder is full: none is given that is not written down, and one that ends, ends all the same.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeKernel, fakeCard, FakeRefusal, type FakeCard } from "../testing/fake-kernel.js";
import { fakeBroker, type FakeBroker } from "./testing/fake-broker.js";
import { CLIENT, LeasePlace, refusal, QUEUE_REQUEST } from "./testing/lease-place.js";

const POLICY = "[all]\nuser = 1000\ndevice = eth0\nflow = udp\ntransmit = raw\n";
const NOTHING = { attached: 0, maps: 0, sockets: 0, pins: 0, descriptors: 0 };

describe("a broker that cannot write its records", () => {
  let place: LeasePlace;
  let card: FakeCard;
  let kernel: FakeKernel;
  let broker: FakeBroker;

  beforeEach(() => {
    place = new LeasePlace();
    card = fakeCard();
    kernel = new FakeKernel([card]);
    broker = fakeBroker(kernel);
  });
  afterEach(() => {
    vi.useRealTimers();
    place.remove();
  });

  const settings = (): unknown => structuredClone({ rss: card.rss, rules: [...card.rules!] });
  const words = (event: string): string[] =>
    place.log.filter((each) => each.event === event).map(({ outcome }) => outcome);

  it("gives no lease, and leaves nothing of it, from whichever change of the card on that is", () => {
    for (let at = 0; ; at++) {
      const before = settings();
      const leases = place.start(broker, POLICY);
      let left = at;
      let restore: (() => void) | null = null;
      kernel.onChange = () => {
        if (left-- === 0) restore = place.full();
      };
      const said = refusal(() => leases.grant(CLIENT, QUEUE_REQUEST));
      kernel.onChange = () => undefined;
      if (restore === null) {
        expect(at).toBeGreaterThan(3);
        expect(said).toBe("");
        break;
      }
      expect(said, `full at change ${at}`).toMatch(/^E_JOURNAL/);
      expect(leases.all()).toEqual([]);
      expect(settings(), `full at change ${at}`).toEqual(before);
      expect(broker.left(), `full at change ${at}`).toEqual(NOTHING);
      (restore as () => void)();
      // What was written before says that it was never given.
      expect(place.start(broker, POLICY).adopt()).toEqual({ adopted: 0, ended: 1 });
      expect(settings()).toEqual(before);
    }
  });

  it("gives the flow, and the card, back when a lease ends, and says in the log what it could not write", () => {
    const before = settings();
    const leases = place.start(broker, POLICY);
    const granting = leases.grant(CLIENT, QUEUE_REQUEST);
    granting.sent(true);
    const restore = place.full();
    leases.end(granting.lease.id, "release", "an admin");
    expect(settings()).toEqual(before);
    expect([leases.all(), broker.left()]).toEqual([[], NOTHING]);
    expect(words("undo")).toEqual(["E_JOURNAL"]);
    expect(words("release")).toEqual(["done"]);
    restore();
  });

  it("waits for whoever holds a queue all the same, and survives it", () => {
    vi.useFakeTimers();
    const before = settings();
    const leases = place.start(broker, POLICY);
    const granting = leases.grant(CLIENT, QUEUE_REQUEST);
    granting.sent(true);
    broker.hold(3);
    const restore = place.full();
    leases.end(granting.lease.id, "death", "its process ended");
    expect(card.rules!.size).toBe(0);
    expect(leases.all()).toMatchObject([{ state: "draining" }]);
    broker.letGo(3);
    vi.advanceTimersByTime(2_000);
    expect([leases.all(), settings()]).toEqual([[], before]);
    restore();
  });

  it("tries an end again that the kernel refused, from its timer too, and says so once", () => {
    vi.useFakeTimers();
    const before = settings();
    const leases = place.start(broker, POLICY);
    const granting = leases.grant(CLIENT, QUEUE_REQUEST);
    granting.sent(true);
    const links = broker.netns.links;
    broker.netns.links = () => {
      throw new FakeRefusal("netlink(RTM_GETLINK)", "ENOBUFS");
    };
    leases.end(granting.lease.id, "death", "its process ended");
    vi.advanceTimersByTime(5_000);
    expect(leases.all()).toHaveLength(1);
    expect(place.log.filter(({ event }) => event === "undo")).toHaveLength(1);
    broker.netns.links = links;
    vi.advanceTimersByTime(2_000);
    expect([leases.all(), settings(), place.records()]).toEqual([[], before, []]);
  });
});
