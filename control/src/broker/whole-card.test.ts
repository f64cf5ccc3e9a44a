// Cards that are leased whole: what the policy and a request have to say, one holder at a time, the memory taken back
// before anything else, draining until the last copy is closed, adoption. The kernel's side is a model.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BifurcateError } from "../errors.js";
import type { LeaseRequest } from "../protocol/messages.js";
import { FakeKernel, fakeCard, FakeRefusal } from "../testing/fake-kernel.js";
import type { AuditEntry } from "./audit.js";
import { Leases } from "./leases.js";
import { parsePolicy } from "./policy.js";
import { fakeBroker, WHOLE_CARD, type FakeBroker } from "./testing/fake-broker.js";
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
const REQUEST: LeaseRequest = {
  device: "0000:01:00.0",
  flows: [],
  mechanism: "vfio",
  transmit: "raw",
  pass: false,
  queues: 1,
  frames: 2048,
  frameSize: 2048,
  ringSize: 512,
  zeroCopy: "prefer",
  busyPoll: false,
  pages: "auto",
};
const MIB = 2 ** 20;

function refuseNetns(): never {
  throw new Error("a card lies in no namespace");
}

describe("a card that is leased whole", () => {
  let folder: string;
  let broker: FakeBroker;
  let log: AuditEntry[];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bf-whole-card-"));
    log = [];
    broker = fakeBroker(new FakeKernel([fakeCard()]));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const names = { user: Number, group: () => null };

  function start(policy = POLICY): Leases {
    const audit = { write: (entry: AuditEntry) => void log.push(entry), close: () => undefined };
    const places = {
      state: join(folder, "leases"),
      bpffs: join(folder, "bpf"),
      splits: join(folder, "splits"),
    };
    const parsed = parsePolicy(policy, "policy", names);
    return new Leases(broker.kernel, broker.netns, broker.machine, places, parsed, audit);
  }

  const client = { uid: 1000, gids: [], pid: process.pid, netns: refuseNetns };

  function take(leases: Leases, change: Partial<LeaseRequest> = {}) {
    const granting = leases.grant(client, { ...REQUEST, ...change });
    granting.sent(true);
    return granting.lease;
  }

  function codeOf(work: () => unknown): string {
    try {
      work();
    } catch (thrown) {
      if (thrown instanceof BifurcateError) return `${thrown.code}: ${thrown.why} ${thrown.next}`;
      throw thrown;
    }
    return "";
  }

  const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 100));

  it("is passed as its memory and its descriptor, with where the rings begin", () => {
    const leases = start();
    const granting = leases.grant(client, REQUEST);
    expect(granting.descriptors).toHaveLength(2);
    granting.sent(true);
    expect(granting.lease).toMatchObject({
      mechanism: "vfio",
      device: "0000:01:00.0",
      transmit: "raw",
      card: { iova: 2 ** 32, ringsAt: 2 * MIB, ringBytes: 2 * MIB },
    });
    expect(leases.list(client)).toMatchObject([{ mechanism: "vfio", flows: [], memory: 6 * MIB }]);
    expect(broker.reaches()).toBe(true);
  });

  it("has rings for every driver, and its memory is counted with them", () => {
    expect(ringBytes(REQUEST)).toBe(2 * MIB);
    expect(ringBytes({ ...REQUEST, queues: 16, ringSize: 4096 })).toBe(18 * MIB);
    expect(wholeBytes({ ...REQUEST, frames: 4000 })).toBe(10 * MIB);
    const leases = start(POLICY.replace("64M", "5M"));
    expect(codeOf(() => take(leases))).toContain("it gives 5242880 bytes of memory");
  });

  it("reaches nothing from the moment that its lease ends, and is free when nobody has it open", async () => {
    const leases = start();
    const { id } = take(leases);
    broker.hold(WHOLE_CARD);
    leases.end(id, "release", "taken back");
    expect(broker.reaches()).toBe(false);
    expect(leases.list(client)).toMatchObject([{ id, state: "draining" }]);
    expect(codeOf(() => take(leases))).toMatch(
      /^E_CARD_BUSY: it is leased already, or somebody still has it/,
    );
    broker.letGo(WHOLE_CARD);
    await settled();
    expect(leases.list(client)).toEqual([]);
    expect(readdirSync(join(folder, "leases"))).toEqual([]);
    expect(take(leases).id).not.toBe(id);
  });

  it("has memory that is the kernel's again when the card is free, also where its client keeps the file", async () => {
    const leases = start();
    const { id } = take(leases);
    broker.hold(WHOLE_CARD);
    leases.end(id, "return", "by its client");
    expect(broker.resident()).toBe(true);
    broker.letGo(WHOLE_CARD);
    await settled();
    expect(leases.list(client)).toEqual([]);
    expect(broker.resident()).toBe(false);
  });

  it("keeps its memory when the broker leaves, for the client that goes on", () => {
    const leases = start();
    take(leases);
    leases.leave();
    expect(broker.resident()).toBe(true);
  });

  it("counts as held while it cannot be looked at, and as free when it is gone", async () => {
    const leases = start();
    const { id } = take(leases);
    let errno = "EMFILE";
    broker.kernel.isCardHeld = () => {
      throw new FakeRefusal("open", errno);
    };
    leases.end(id, "release", "taken back");
    for (errno of ["EMFILE", "EACCES", "EPERM", "EAGAIN"]) {
      await settled();
      expect(leases.list(client), errno).toMatchObject([{ id, state: "draining" }]);
    }
    errno = "ENODEV";
    await vi.waitFor(() => expect(leases.list(client)).toEqual([]), 10_000);
  });

  it("is waited for all the same when its memory cannot be taken, which is written down", () => {
    const ended = (errno: string): AuditEntry[] => {
      const lend = broker.kernel.lendCard;
      broker.kernel.lendCard = (...args) => {
        const revoke = (): never => {
          throw new FakeRefusal("ioctl(IOMMU_IOAS_UNMAP)", errno);
        };
        return { ...lend(...args), loan: { revoke, close: () => undefined } };
      };
      const leases = start();
      const { id } = take(leases);
      leases.end(id, "release", "taken back");
      broker.kernel.lendCard = lend;
      expect(leases.list(client)).toEqual([]);
      return log.filter((entry) => entry.event === "undo");
    };
    expect(ended("ENOENT")).toEqual([]);
    expect(ended("EIO")).toMatchObject([{ outcome: "E_UNDO_INCOMPLETE", device: "0000:01:00.0" }]);
  });

  it("is one lease's at a time, and whose, nobody is told", () => {
    const leases = start();
    take(leases);
    expect(codeOf(() => take(leases))).toMatch(/^E_CARD_BUSY/);
    expect(leases.list({ uid: 2000, gids: [] })).toEqual([]);
  });

  it("goes on under the next broker, which waits for its last copy, since what maps it died with the one before", async () => {
    const before = start();
    const { id } = take(before);
    broker.hold(WHOLE_CARD);
    before.leave();
    expect(broker.reaches()).toBe(true);
    const after = start();
    expect(after.adopt()).toEqual({ adopted: 1, ended: 0 });
    expect(after.list(client)).toMatchObject([{ id, state: "granted", mechanism: "vfio" }]);
    after.end(id, "release", "taken back");
    expect(after.list(client)).toMatchObject([{ id, state: "draining" }]);
    after.leave();
    const last = start();
    expect(last.adopt()).toEqual({ adopted: 0, ended: 1 });
    broker.letGo(WHOLE_CARD);
    await settled();
    expect(last.list(client)).toEqual([]);
  });

  it("is taken from a client that does not let go by the next broker too, where the policy says end-process", async () => {
    const policy = `${POLICY}draining = end-process\n`;
    const before = start(policy);
    const { id } = take(before);
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
    expect(after.list(client)).toMatchObject([{ id, state: "draining" }]);
    await vi.waitFor(() => expect(after.list(client)).toEqual([]), 10_000);
    expect(ended).toBe(1);
  });

  it("is free under the next broker when the one before was killed before it passed it", () => {
    const before = start();
    before.grant(client, REQUEST);
    before.leave();
    const after = start();
    expect(after.adopt()).toEqual({ adopted: 0, ended: 1 });
    expect(log).toContainEqual(expect.objectContaining({ event: "adopt", why: "nobody has the card" }));
    expect(after.list(client)).toEqual([]);
    expect(take(after).mechanism).toBe("vfio");
  });

  it("leaves nothing when it cannot be opened, and says what root has to do", () => {
    const refused = (call: string, errno: string): string => {
      broker.kernel.lendCard = () => {
        throw new FakeRefusal(call, errno);
      };
      return codeOf(() => take(start()));
    };
    expect(refused("open", "EACCES")).toMatch(/^E_CARD_NOT_TAKEN.*take 0000:01:00.0 --for-broker/);
    expect(refused("open", "EPERM")).toMatch(
      /^E_CARD_NOT_TAKEN.*bifurcated.service load vfio_pci and iommufd/,
    );
    expect(refused("open", "ENXIO")).toMatch(/^E_CARD_NOT_TAKEN/);
    expect(refused("ioctl(VFIO_DEVICE_BIND_IOMMUFD)", "EINVAL")).toMatch(/^E_CARD_BUSY/);
    expect(refused("ioctl(VFIO_DEVICE_BIND_IOMMUFD)", "EPERM")).toMatch(
      /^E_CARD_BUSY: another card of its IOMMU group is leased/,
    );
    expect(refused("open", "EBUSY")).toMatch(/^E_CARD_BUSY/);
    expect(refused("ioctl(IOMMU_IOAS_MAP_FILE)", "ENOMEM")).toMatch(/^E_NO_MEMORY/);
    expect(refused("pci", "EOPNOTSUPP")).toMatch(/^E_CARD_UNKNOWN/);
    expect(readdirSync(join(folder, "leases"))).toEqual([]);
  });

  it("may send anything, so that a lease of less is none", () => {
    expect(codeOf(() => take(start(), { transmit: "own" }))).toMatch(/^E_LEASE_UNSUPPORTED: nothing checks/);
    expect(codeOf(() => take(start(), { transmit: "none" }))).toMatch(/^E_LEASE_UNSUPPORTED/);
    expect(codeOf(() => take(start(), { pass: true }))).toMatch(/does not give pass/);
  });

  it("is given by a rule about cards only, and such a rule gives nothing else", () => {
    const rule = (change: string, to: string): string =>
      codeOf(() => parsePolicy(POLICY.replace(change, to), "policy", names));
    expect(rule("transmit = raw", "transmit = own")).toContain("say transmit = raw");
    for (const none of ["eth0", "01:00.0", "10000:01:00.0"])
      expect(rule("0000:01:00.0", none), none).toContain("PCI address");
    expect(rule("= vfio", "= vfio, port")).toContain("stands alone");
    expect(rule("queues = 4", "flow = udp")).toContain("'flow' has no meaning");
    expect(rule("queues = 4", "rate = 5")).toContain("'rate' has no meaning");
    expect(rule("queues = 4", "pass = yes")).toContain("no way into the kernel");
    const flow: Partial<LeaseRequest> = { mechanism: "auto", flows: ["udp"], transmit: "none" };
    expect(codeOf(() => take(start(), flow))).toContain("the mechanism is vfio, not auto");
    const ofFlows = "[a]\nuser = 1000\ndevice = 0000:01:00.0\nflow = udp\ntransmit = raw\n";
    expect(codeOf(() => take(start(ofFlows)))).toContain("the mechanism is port or queue, not vfio");
  });
});
