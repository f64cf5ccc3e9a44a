// Cards that are leased whole: what the policy and a request have to say, one holder at a time, the memory taken back
// before anything else, draining until the last copy is closed, adoption. The kernel's side is a model.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { parseClientMessage, type LeaseRequest } from "../protocol/messages.js";
import { FakeKernel, fakeCard, FakeRefusal } from "../testing/fake-kernel.js";
import type { AuditEntry } from "./audit.js";
import type { Leases } from "./leases.js";
import { parsePolicy } from "./policy.js";
import { fakeBroker, WHOLE_CARD, type FakeBroker } from "./testing/fake-broker.js";
import { CLIENT, LeasePlace, NAMES, refusal, refusalOf, REQUEST } from "./testing/lease-place.js";
import { ringBytes, wholeBytes } from "./whole-card.js";

const POLICY = `
[card]
user = 1000
device = 0000:01:00.0
mechanism = vfio
transmit = raw
queues = 4
memory = 64M
`;
const ASKED: LeaseRequest = {
  ...REQUEST,
  device: "0000:01:00.0",
  flows: [],
  mechanism: "vfio",
  transmit: "raw",
  frames: 2048,
  ringSize: 512,
};
const MIB = 2 ** 20;

describe("a card that is leased whole", () => {
  let place: LeasePlace;
  let broker: FakeBroker;

  beforeEach(() => {
    place = new LeasePlace();
    broker = fakeBroker(new FakeKernel([fakeCard()]));
  });
  afterEach(() => place.remove());

  const start = (policy = POLICY): Leases => place.start(broker, policy);

  async function take(leases: Leases, change: Partial<LeaseRequest> = {}) {
    const granting = await leases.grantCard(CLIENT, { ...ASKED, ...change });
    granting.sent(true);
    return granting.lease;
  }

  const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 100));

  it("is passed as its memory and its descriptor, with where the rings begin", async () => {
    const leases = start();
    const granting = await leases.grantCard(CLIENT, ASKED);
    expect(granting.descriptors).toHaveLength(2);
    granting.sent(true);
    expect(granting.lease).toMatchObject({
      mechanism: "vfio",
      device: "0000:01:00.0",
      transmit: "raw",
      card: { iova: 2 ** 32, ringsAt: 2 * MIB, ringBytes: 2 * MIB },
    });
    expect(leases.list(CLIENT)).toMatchObject([{ mechanism: "vfio", flows: [], memory: 6 * MIB }]);
    expect(broker.reaches()).toBe(true);
  });

  it("has rings for every driver, and its memory is counted with them", async () => {
    expect(ringBytes(ASKED)).toBe(2 * MIB);
    expect(ringBytes({ ...ASKED, queues: 16, ringSize: 4096 })).toBe(18 * MIB);
    expect(wholeBytes({ ...ASKED, frames: 4000 })).toBe(10 * MIB);
    const leases = start(POLICY.replace("64M", "5M"));
    expect(await refusalOf(take(leases))).toContain("it gives 5242880 bytes of memory");
  });

  it("reaches nothing from the moment that its lease ends, and is free when nobody has it open", async () => {
    const leases = start();
    const { id } = await take(leases);
    broker.hold(WHOLE_CARD);
    leases.end(id, "release", "taken back");
    expect(broker.reaches()).toBe(false);
    expect(leases.list(CLIENT)).toMatchObject([{ id, state: "draining" }]);
    expect(await refusalOf(take(leases))).toMatch(
      /^E_CARD_BUSY: it is leased already, or somebody still has it/,
    );
    broker.letGo(WHOLE_CARD);
    await vi.waitFor(() => expect(leases.list(CLIENT)).toEqual([]), 60_000);
    expect(place.records()).toEqual([]);
    expect((await take(leases)).id).not.toBe(id);
  });

  it("has memory that is the kernel's again when the card is free, also where its client keeps the file", async () => {
    const leases = start();
    const { id } = await take(leases);
    broker.hold(WHOLE_CARD);
    leases.end(id, "return", "by its client");
    expect(broker.resident()).toBe(true);
    broker.letGo(WHOLE_CARD);
    await vi.waitFor(() => expect(leases.list(CLIENT)).toEqual([]), 60_000);
    expect(broker.resident()).toBe(false);
  });

  it("keeps its memory when the broker leaves, for the client that goes on", async () => {
    const leases = start();
    await take(leases);
    leases.leave();
    expect(broker.resident()).toBe(true);
  });

  it("counts as held while it cannot be looked at, and as free when it is gone", async () => {
    const leases = start();
    const { id } = await take(leases);
    let errno = "EMFILE";
    broker.kernel.isCardHeld = () => {
      throw new FakeRefusal("open", errno);
    };
    leases.end(id, "release", "taken back");
    for (errno of ["EMFILE", "EACCES", "EPERM", "EAGAIN"]) {
      await settled();
      expect(leases.list(CLIENT), errno).toMatchObject([{ id, state: "draining" }]);
    }
    errno = "ENXIO";
    await vi.waitFor(() => expect(leases.list(CLIENT)).toEqual([]), 60_000);
  });

  it("whose group tells nothing is looked at beside, which keeps nobody waiting and is one look at a time", async () => {
    const looks: ((held: boolean) => void)[] = [];
    broker.kernel.isCardHeld = () => null;
    broker.kernel.lookAtCard = () => new Promise((resolve) => looks.push(resolve));
    const before = start();
    const { id } = await take(before);
    before.leave();
    const leases = start();
    expect(leases.adopt()).toEqual({ adopted: 1, ended: 0 });
    await settled();
    expect(leases.list(CLIENT)).toMatchObject([{ id, state: "granted" }]);
    leases.end(id, "release", "taken back");
    await settled();
    expect(leases.list(CLIENT)).toMatchObject([{ id, state: "draining" }]);
    expect(looks).toHaveLength(1);
    looks[0]!(true);
    await vi.waitFor(() => expect(looks).toHaveLength(2), 60_000);
    expect(leases.list(CLIENT)).toMatchObject([{ id, state: "draining" }]);
    looks[1]!(false);
    await vi.waitFor(() => expect(leases.list(CLIENT)).toEqual([]), 60_000);
    expect(looks).toHaveLength(2);
  });

  it("whose group tells nothing ends under the next broker when a look beside finds that nobody has it", async () => {
    broker.kernel.isCardHeld = () => null;
    const before = start();
    await take(before);
    before.leave();
    const after = start();
    expect(after.adopt()).toEqual({ adopted: 1, ended: 0 });
    await vi.waitFor(() => expect(after.list(CLIENT)).toEqual([]), 60_000);
    expect(place.log).toContainEqual(expect.objectContaining({ event: "end", why: "nobody has the card" }));
  });

  it("is waited for all the same when its memory cannot be taken, which is written down", async () => {
    const ended = async (errno: string): Promise<AuditEntry[]> => {
      const lend = broker.kernel.lendCard;
      broker.kernel.lendCard = async (...args) => {
        const revoke = (): never => {
          throw new FakeRefusal("ioctl(IOMMU_IOAS_UNMAP)", errno);
        };
        return { ...(await lend(...args)), loan: { revoke, close: () => undefined } };
      };
      const leases = start();
      const { id } = await take(leases);
      leases.end(id, "release", "taken back");
      broker.kernel.lendCard = lend;
      expect(leases.list(CLIENT)).toEqual([]);
      return place.log.filter((entry) => entry.event === "undo");
    };
    expect(await ended("ENOENT")).toEqual([]);
    expect(await ended("EIO")).toMatchObject([{ outcome: "E_UNDO_INCOMPLETE", device: "0000:01:00.0" }]);
  });

  it("is one lease's at a time, and whose, nobody is told", async () => {
    const leases = start();
    await take(leases);
    expect(await refusalOf(take(leases))).toMatch(/^E_CARD_BUSY/);
    expect(leases.list({ uid: 2000, gids: [] })).toEqual([]);
  });

  it("goes on under the next broker, which waits for its last copy, since what maps it died with the one before", async () => {
    const before = start();
    const { id } = await take(before);
    broker.hold(WHOLE_CARD);
    before.leave();
    expect(broker.reaches()).toBe(true);
    const after = start();
    expect(after.adopt()).toEqual({ adopted: 1, ended: 0 });
    expect(after.list(CLIENT)).toMatchObject([{ id, state: "granted", mechanism: "vfio" }]);
    after.end(id, "release", "taken back");
    expect(after.list(CLIENT)).toMatchObject([{ id, state: "draining" }]);
    after.leave();
    const last = start();
    expect(last.adopt()).toEqual({ adopted: 0, ended: 1 });
    broker.letGo(WHOLE_CARD);
    await vi.waitFor(() => expect(last.list(CLIENT)).toEqual([]), 60_000);
  });

  it("is taken from a client that does not let go by the next broker too, where the policy says end-process", async () => {
    const policy = `${POLICY}draining = end-process\n`;
    const before = start(policy);
    const { id } = await take(before);
    broker.hold(WHOLE_CARD);
    before.end(id, "release", "taken back");
    before.leave();
    let ended = 0;
    const kill = (): void => {
      ended++;
      broker.letGo(WHOLE_CARD);
    };
    broker.machine.process = () => ({ onEnd: () => undefined, kill, close: () => undefined }) as never;
    const after = start(policy);
    expect(after.adopt()).toEqual({ adopted: 0, ended: 1 });
    expect(after.list(CLIENT)).toMatchObject([{ id, state: "draining" }]);
    await vi.waitFor(() => expect(after.list(CLIENT)).toEqual([]), 60_000);
    expect(ended).toBe(1);
  });

  it("is free under the next broker when the one before was killed before it passed it", async () => {
    const before = start();
    await before.grantCard(CLIENT, ASKED);
    before.leave();
    const after = start();
    expect(after.adopt()).toEqual({ adopted: 0, ended: 1 });
    expect(place.log).toContainEqual(expect.objectContaining({ event: "adopt", why: "nobody has the card" }));
    expect(after.list(CLIENT)).toEqual([]);
    expect((await take(after)).mechanism).toBe("vfio");
  });

  it("leaves nothing when it cannot be opened, and says what root has to do", async () => {
    const refused = async (call: string, errno: string): Promise<string> => {
      broker.kernel.lendCard = () => Promise.reject(new FakeRefusal(call, errno));
      return await refusalOf(take(start()));
    };
    expect(await refused("open", "EACCES")).toMatch(/^E_CARD_NOT_TAKEN.*take 0000:01:00.0 --for-broker/);
    expect(await refused("open", "EPERM")).toMatch(
      /^E_CARD_NOT_TAKEN.*bifurcated.service load vfio_pci and iommufd/,
    );
    expect(await refused("open", "ENXIO")).toMatch(/^E_CARD_NOT_TAKEN/);
    expect(await refused("ioctl(VFIO_DEVICE_BIND_IOMMUFD)", "EINVAL")).toMatch(/^E_CARD_BUSY/);
    expect(await refused("ioctl(VFIO_DEVICE_BIND_IOMMUFD)", "EPERM")).toMatch(
      /^E_CARD_BUSY: another card of its IOMMU group is leased/,
    );
    expect(await refused("open", "EBUSY")).toMatch(/^E_CARD_BUSY/);
    expect(await refused("ioctl(IOMMU_IOAS_MAP_FILE)", "ENOMEM")).toMatch(/^E_NO_MEMORY/);
    expect(await refused("pci", "EOPNOTSUPP")).toMatch(/^E_CARD_UNKNOWN/);
    expect(place.records()).toEqual([]);
  });

  it("is refused without an IOMMU: where its kernel has no group for it, or one that nothing protects", async () => {
    // What linux/src/vfio/lend.rs reports of each: it opens no group of VFIO's no-IOMMU mode.
    for (const [call, errno] of [
      ["vfio", "ENXIO"],
      ["open", "ENOENT"],
    ] as const) {
      broker.kernel.lendCard = () => Promise.reject(new FakeRefusal(call, errno));
      const leases = start();
      expect(await refusalOf(take(leases)), errno).toMatch(/^E_CARD_NOT_TAKEN/);
      expect([leases.list(CLIENT), place.records(), broker.reaches()]).toEqual([[], [], false]);
    }
    // No other way to a card has a name that a policy or a request could say.
    for (const via of ["vfio-noiommu", "uio_pci_generic", "igb_uio"]) {
      const rule = POLICY.replace("= vfio", `= ${via}`);
      expect(refusal(() => parsePolicy(rule, "policy", NAMES))).toContain(`'${via}' is no mechanism`);
      const message = { type: "lease", request: 1, lease: { ...ASKED, mechanism: via } };
      expect(() => parseClientMessage(Buffer.from(JSON.stringify(message))), via).toThrow(/mechanism/);
    }
  });

  describe("whose kernel takes its time", () => {
    /** A lease that is asked for, and what lets the kernel answer. */
    function slow(leases: Leases): { asked: Promise<string>; answer: () => void } {
      const lend = broker.kernel.lendCard;
      let answer = (): void => undefined;
      const kernel = new Promise<void>((resolve) => (answer = resolve));
      broker.kernel.lendCard = async (...args) => {
        await kernel;
        return lend(...args);
      };
      const asked = refusalOf(take(leases));
      broker.kernel.lendCard = lend;
      return { asked, answer };
    }
    const descriptors = (): number => broker.left().descriptors;

    it("keeps nobody else waiting: others' cards, flows and lists are answered meanwhile", async () => {
      const flows = "[flow]\nuser = 1000\ndevice = eth0\nflow = udp\ntransmit = raw\nmechanism = queue\n";
      const leases = start(
        `${POLICY}\n${POLICY.replaceAll("01:00", "02:00").replace("card", "other")}${flows}`,
      );
      const { asked, answer } = slow(leases);
      expect(leases.list(CLIENT)).toMatchObject([{ state: "reserved", mechanism: "vfio" }]);
      expect((await take(leases, { device: "0000:02:00.0" })).device).toBe("0000:02:00.0");
      const request: LeaseRequest = { ...ASKED, device: "eth0", flows: ["udp"], mechanism: "queue" };
      leases.grant(CLIENT, request).sent(true);
      expect(leases.list(CLIENT)).toHaveLength(3);
      // The card is nobody else's, and its memory counts, from the beginning.
      expect(await refusalOf(take(leases))).toMatch(/^E_CARD_BUSY/);
      answer();
      expect(await asked).toBe("");
      expect(leases.list(CLIENT).map(({ state }) => state)).toEqual(["granted", "granted", "granted"]);
    });

    it("can be released meanwhile, and leaves nothing when the kernel has answered", async () => {
      const before = descriptors();
      const leases = start();
      const { asked, answer } = slow(leases);
      const { id } = leases.list(CLIENT)[0]!;
      leases.end(id, "release", "taken back");
      expect(leases.list(CLIENT)).toMatchObject([{ id, state: "revoked" }]);
      expect(await refusalOf(take(leases))).toMatch(/^E_CARD_BUSY/);
      answer();
      expect(await asked).toMatch(/^E_LEASE_REVOKED: it was taken back while/);
      expect(broker.reaches()).toBe(false);
      expect([leases.list(CLIENT), place.records(), descriptors()]).toEqual([[], [], before]);
      await take(leases);
    });

    it("leaves nothing when it fails after it was released", async () => {
      const leases = start();
      broker.kernel.lendCard = () => Promise.reject(new FakeRefusal("open", "EBUSY"));
      const asked = refusalOf(take(leases));
      leases.end(leases.list(CLIENT)[0]!.id, "release", "taken back");
      expect(await asked).toMatch(/^E_CARD_BUSY/);
      expect([leases.list(CLIENT), place.records()]).toEqual([[], []]);
    });

    it("is the next broker's to take away when this one ends meanwhile", async () => {
      const before = descriptors();
      const leases = start();
      const { asked, answer } = slow(leases);
      leases.leave();
      answer();
      expect(await asked).toMatch(/^E_LEASE_REVOKED/);
      expect(descriptors()).toBe(before);
      expect(place.records()).toHaveLength(1);
      const after = start();
      expect(after.adopt()).toEqual({ adopted: 0, ended: 1 });
      expect(place.records()).toEqual([]);
    });

    it("is free again when its client has died meanwhile", async () => {
      const before = descriptors();
      const leases = start();
      const { asked, answer } = slow(leases);
      const { machine } = broker;
      machine.process = () => {
        throw new FakeRefusal("pidfd_open", "ESRCH");
      };
      answer();
      expect(await asked).toContain("ESRCH");
      expect([leases.list(CLIENT), place.records(), descriptors()]).toEqual([[], [], before]);
    });
  });

  it("may send anything, so that a lease of less is none", async () => {
    expect(await refusalOf(take(start(), { transmit: "own" }))).toMatch(
      /^E_LEASE_UNSUPPORTED: nothing checks/,
    );
    expect(await refusalOf(take(start(), { transmit: "none" }))).toMatch(/^E_LEASE_UNSUPPORTED/);
    expect(await refusalOf(take(start(), { pass: true }))).toMatch(/does not give pass/);
  });

  it("is given by a rule about cards only, and such a rule gives nothing else", async () => {
    const rule = (change: string, to: string): string =>
      refusal(() => parsePolicy(POLICY.replace(change, to), "policy", NAMES));
    expect(rule("transmit = raw", "transmit = own")).toContain("say transmit = raw");
    for (const none of ["eth0", "01:00.0", "10000:01:00.0"])
      expect(rule("0000:01:00.0", none), none).toContain("PCI address");
    expect(rule("= vfio", "= vfio, port")).toContain("stands alone");
    expect(rule("queues = 4", "flow = udp")).toContain("'flow' has no meaning");
    expect(rule("queues = 4", "rate = 5")).toContain("'rate' has no meaning");
    expect(rule("queues = 4", "pass = yes")).toContain("no way into the kernel");
    const flow: Partial<LeaseRequest> = { mechanism: "auto", flows: ["udp"], transmit: "none" };
    expect(await refusalOf(take(start(), flow))).toContain("the mechanism is vfio, not auto");
    const ofFlows = "[a]\nuser = 1000\ndevice = 0000:01:00.0\nflow = udp\ntransmit = raw\n";
    expect(await refusalOf(take(start(ofFlows)))).toContain("the mechanism is port or queue, not vfio");
  });
});
