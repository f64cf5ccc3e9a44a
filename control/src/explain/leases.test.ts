// A card whose program is a broker's: whose a packet is there, and that nobody calls the broker a stranger.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { examine } from "../doctor/examine.js";
import { bootId, ownIdentity } from "../facts/processes.js";
import type { LeaseRecord } from "../lease/record.js";
import { fakeFiles } from "../testing/fake-files.js";
import { fakeCard, FakeKernel, fakeLink, fakeSocket } from "../testing/fake-kernel.js";
import { explainPacket, type Explanation } from "./explain.js";
import { readExplainFacts } from "./facts.js";
import { watchPackets } from "./live/observe.js";
import type { LiveVerdict } from "./live/verdict.js";
import { parsePacket } from "./packet/line.js";
import type { StageName } from "./stages/stage.js";

const PROGRAM = 88;

describe("a card with a broker's leases", () => {
  let folder: string;
  let kernel: FakeKernel;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bifurcate-leases-"));
    mkdirSync(join(folder, "leases"));
    const link = fakeLink({ xdp: { mode: "driver", programId: PROGRAM } });
    kernel = new FakeKernel([fakeCard({ link })]);
    kernel.route = () => ({ kind: "local", ifindex: 1, gateway: null });
    // Nobody holds it when no broker runs: it has a name in a BPF file system.
    kernel.owners.set(PROGRAM, { id: PROGRAM, name: "bifurcated", holders: [] });
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  function lease(hex: string, port: number, change: Partial<LeaseRecord> = {}): void {
    const id = `lease-${hex.repeat(8)}`;
    const record = {
      version: 1,
      id,
      state: "granted",
      since: "2026-01-01T00:00:00Z",
      bootId: bootId(),
      netnsInode: kernel.netns.inode,
      card: { ifindex: 2, name: "eth0" },
      slot: 0,
      own: null,
      names: { near: `bfn${hex.repeat(8)}`, far: `bff${hex.repeat(8)}`, way: null },
      client: { ...ownIdentity(), uid: 65_534 },
      rule: "dns",
      draining: "delete-port",
      request: { flows: [`udp dst port ${port}`], transmit: "own" },
      granted: null,
      ...change,
    };
    writeFileSync(join(folder, "leases", `${id}.json`), JSON.stringify(record));
  }

  function explain(packet: string, device = "eth0"): Explanation {
    const asked = { packet: parsePacket(packet) };
    return explainPacket(readExplainFacts(kernel, kernel.netns, fakeFiles(), device, asked, folder));
  }
  const says = ({ stages }: Explanation, stage: StageName): string =>
    stages.find((each) => each.name === stage)!.says;
  const findings = (): string[] =>
    examine(kernel, kernel.netns, fakeFiles(), { ifname: "eth0", stateDirectory: folder }).findings.map(
      ({ name }) => name,
    );

  it("gives a lease its flow by its port, and the kernel the rest", () => {
    lease("a", 53);
    lease("b", 54);
    const of = explain("udp 192.0.2.2:4242 > 192.0.2.1:54");
    expect(says(of, "XDP")).toContain(
      "of bifurcated, the broker: the frame is of lease-bbbbbbbb, to its port bffbbbbbbbb",
    );
    expect(says(of, "socket")).toContain("bffbbbbbbbb");
    expect(says(of, "lease")).toContain("lease-bbbbbbbb of user 65534");
    expect(says(of, "lease")).toContain("by the rule [dns], by a port");
    expect(says(of, "handler")).toContain("the client of lease-bbbbbbbb");
    expect(of.complaints).toEqual([]);
    const other = explain("udp 192.0.2.2:4242 > 192.0.2.1:99");
    expect(says(other, "XDP")).toContain("not of any of its 2 leases, to the kernel");
    expect(says(other, "lease")).toContain("not asked");
    expect(other.complaints.map(({ name }) => name)).not.toContain("foreign-program");
  });

  it("gives a lease with a queue of its own what comes there", () => {
    lease("c", 53, { own: { queues: [3], before: null, steps: [], states: [] } });
    kernel.cards[0]!.sockets = [fakeSocket({ queue: 3 })];
    // Every packet of this card comes on queue 3.
    kernel.cards[0]!.rss = kernel.cards[0]!.rss!.map(() => 3);
    const of = explain("udp 192.0.2.2:4242 > 192.0.2.1:53");
    expect(says(of, "XDP")).toContain("the frame is of lease-cccccccc, to the socket of queue 3");
    expect(says(of, "lease")).toContain("with queue 3 of its own");
    kernel.cards[0]!.rss = kernel.cards[0]!.rss.map(() => 1);
    const elsewhere = explain("udp 192.0.2.2:4242 > 192.0.2.1:53");
    expect(says(elsewhere, "XDP")).toContain("on queue 3 only");
    expect(elsewhere.complaints.map(({ name }) => name)).toContain("wrong-queue");
  });

  it("is no stranger's to the doctor, and is one when the program is", () => {
    lease("a", 53);
    expect(findings()).not.toContain("foreign-program");
    kernel.owners.set(PROGRAM, { id: PROGRAM, name: "cil_xdp", holders: [{ pid: 9, command: "cilium" }] });
    expect(findings()).toContain("foreign-program");
    expect(says(explain("udp 192.0.2.2:4242 > 192.0.2.1:53"), "XDP")).toContain("somebody else's");
  });

  it("knows a lease's port for what it is", () => {
    lease("a", 53, {
      names: { near: "eth0", far: "bffaaaaaaaa", way: null },
      card: { ifindex: 9, name: "eth9" },
    });
    kernel.owners.set(PROGRAM, { id: PROGRAM, name: "bifurcated_tx", holders: [] });
    expect(findings()).not.toContain("foreign-program");
    expect(says(explain("udp 192.0.2.2:4242 > 192.0.2.1:53"), "XDP")).toContain("the port of lease-aaaaaaaa");
  });

  /** Counts while `happen` goes on. */
  function live(happen: () => void): Promise<LiveVerdict> {
    const asked = { packet: parsePacket("udp 192.0.2.2:4242 > 192.0.2.1:53") };
    const options = { ifname: "eth0", asked, seconds: 0.001, stateDirectory: folder, started: happen };
    return watchPackets(kernel, kernel.netns, fakeFiles(), options);
  }
  const counted = ({ counted: all }: LiveVerdict): { packets: number | null; says: string } =>
    all.find(({ name }) => name === "lease")!;
  const ring = (producer: number, consumer: number) => ({ producer, consumer, needWakeup: false });

  it("counts what comes to a lease's port, and judges the sockets there", async () => {
    lease("a", 53);
    const link = fakeLink({ index: 9, name: "bffaaaaaaaa" });
    const port = fakeCard({ link, sockets: [fakeSocket({ queue: 0 })] });
    kernel.cards.push(port);
    const card = kernel.cards[0]!;
    card.sockets = [];
    const arrive = (read: number) => (): void => {
      card.counters = { rxPackets: (card.counters?.rxPackets ?? 0) + 100 };
      port.counters = { rxPackets: (port.counters?.rxPackets ?? 0) + 100 };
      port.sockets = [fakeSocket({ queue: 0, rx: ring(100, read) })];
    };
    const fine = await live(arrive(100));
    expect(counted(fine)).toMatchObject({
      packets: 100,
      says: "100 to the port bffaaaaaaaa of lease-aaaaaaaa, 0 dropped there",
    });
    expect(fine.vanish).toBeNull();
    port.sockets = [fakeSocket({ queue: 0 })];
    const stuck = await live(arrive(0));
    expect(stuck.vanish).toMatchObject({ stage: "handler", complaint: { name: "handler-stalled" } });
    kernel.cards.pop();
    expect(counted(await live(() => undefined)).says).toContain("the lease has ended");
  });

  it("counts what comes to a lease on queues of its own, and to a virtual interface that the kernel lends one to", async () => {
    lease("c", 53, { own: { queues: [3], before: null, steps: [], states: [] } });
    const card = kernel.cards[0]!;
    card.sockets = [fakeSocket({ queue: 3 })];
    const own = await live(() => {
      card.counters = { rxPackets: 70 };
      card.sockets = [fakeSocket({ queue: 3, rx: ring(70, 70) })];
    });
    expect(counted(own)).toMatchObject({ packets: 70, says: "70 to lease-cccccccc, on queue 3 of its own" });
    rmSync(join(folder, "leases", "lease-cccccccc.json"));
    card.leases = new Map([[3, "nk0"]]);
    card.driverCounters = { rx_queue_2_packets: 5, rx_queue_3_packets: 0 };
    const lent = await live(() => {
      card.driverCounters = { rx_queue_2_packets: 9, rx_queue_3_packets: 30 };
    });
    expect(counted(lent)).toMatchObject({ packets: 30, says: "30 on queue 3" });
  });

  it("counts no lease of another boot, another namespace, or one that has ended", () => {
    lease("a", 53, { bootId: "another" });
    lease("b", 53, { netnsInode: 1 });
    lease("c", 53, { state: "draining" });
    expect(says(explain("udp 192.0.2.2:4242 > 192.0.2.1:53"), "XDP")).toContain("not of any of its 0 leases");
  });
});
