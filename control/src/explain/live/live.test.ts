// Counting on a packet's way: each place where packets can vanish, from counters that a fake kernel moves.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { bootId, ownIdentity } from "../../facts/processes.js";
import type { XskFacts } from "../../observe/kernel.js";
import { fakeFiles } from "../../testing/fake-files.js";
import { fakeCard, FakeKernel, fakeLink, fakeRule, fakeSocket } from "../../testing/fake-kernel.js";
import { XDP } from "../facts.js";
import { parsePacket } from "../packet/line.js";
import { STAGES } from "../stages/stage.js";
import { watchPackets } from "./observe.js";
import { queueCounters, ruleCounter } from "./sample.js";
import type { LiveVerdict } from "./verdict.js";

const PACKET = "udp 192.0.2.2:4242 > 192.0.2.1:53";
let folder = "";
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "bifurcate-live-"))));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Takes the split of the scene away. */
let noSplit: () => void = () => undefined;

/** A split on queue 0 of a veth card with two; `happen` is what goes on while packets are counted. */
async function watch(
  happen: (kernel: FakeKernel) => void,
  before: (kernel: FakeKernel) => void = () => undefined,
  packet = PACKET,
): Promise<LiveVerdict> {
  const link = fakeLink({ xdp: { mode: "driver", programId: 77 } });
  const card = fakeCard({ link, rss: null, sockets: [fakeSocket()], counters: {}, driverCounters: {} }, 2);
  const kernel = new FakeKernel([card]);
  kernel.owners.set(77, { id: 77, name: "bifurcate", holders: [{ pid: process.pid, command: "node" }] });
  kernel.programs.set(77, { verdict: (_, queue) => (queue === 0 ? XDP.redirect : XDP.pass), runs: 0 });
  const stateDirectory = mkdtempSync(join(folder, "state-"));
  const journal = {
    version: 1,
    id: "eth0-1a2b3c",
    created: "2026-01-01T00:00:00Z",
    bootId: bootId(),
    owner: ownIdentity(),
    guardian: null,
    netns: { path: "/proc/self/ns/net", inode: kernel.netns.inode },
    plan: {
      device: { ifindex: 2, name: "eth0" },
      steps: [],
      flows: ["udp dst port 53"],
      path: { backend: "af_xdp", queues: [0] },
    },
    steps: [],
    confirmBy: null,
  };
  const file = join(stateDirectory, "eth0-1a2b3c.json");
  writeFileSync(file, JSON.stringify(journal));
  noSplit = () => rmSync(file);
  before(kernel);
  const asked = { packet: parsePacket(packet) };
  const started = (): void => happen(kernel);
  return watchPackets(kernel, kernel.netns, fakeFiles(), {
    ifname: "eth0",
    asked,
    seconds: 0.001,
    stateDirectory,
    started,
  });
}

/** Nobody splits the card: the kernel gets what arrives. */
function toKernel(kernel: FakeKernel): void {
  const card = kernel.cards[0]!;
  card.link = fakeLink();
  card.sockets = [];
  noSplit();
}

/** What a hundred packets do that arrive and run through the program. */
function arrive(kernel: FakeKernel, socket: Partial<XskFacts> = {}): void {
  const card = kernel.cards[0]!;
  card.counters = { rxPackets: 100 };
  card.driverCounters = { rx_queue_0_xdp_packets: 100 };
  kernel.programs.get(77)!.runs += 100;
  card.sockets = card.sockets!.map((each) => ({ ...each, ...socket }));
}
const ring = (producer: number, consumer: number, needWakeup = false): NonNullable<XskFacts["rx"]> => ({
  producer,
  consumer,
  needWakeup,
});
const statistics = (change: Partial<NonNullable<XskFacts["statistics"]>>): XskFacts["statistics"] => ({
  ...fakeSocket().statistics!,
  ...change,
});

describe("counting", () => {
  it("finds nothing amiss where every packet is read, and counts at each stage", async () => {
    const { counted, vanish } = await watch((kernel) => arrive(kernel, { rx: ring(100, 100) }));
    expect(vanish).toBeNull();
    expect(counted.map(({ name, packets }) => [name, packets])).toEqual([
      ["link", 100],
      ["card filter", null],
      ["RSS", 100],
      ["XDP", 100],
      ["socket", 100],
      ["lease", null],
      ["handler", 100],
      ["kernel", 0],
    ]);
  });

  const cases: [string, string, Parameters<typeof watch>, RegExp][] = [
    [
      "fill-ring-empty",
      "socket",
      [
        (k) =>
          arrive(k, { fill: ring(9, 9), statistics: statistics({ rxDropped: 100, fillRingEmpty: 100 }) }),
      ],
      /100 packets were dropped since the fill ring .* is empty/,
    ],
    [
      "ring-full",
      "socket",
      [(k) => arrive(k, { statistics: statistics({ rxRingFull: 100 }) })],
      /100 packets were dropped since the receive ring/,
    ],
    [
      "handler-stalled",
      "handler",
      [(k) => arrive(k, { rx: ring(100, 0) })],
      /got 100 packets and its owner read none/,
    ],
    [
      "umem-shared-wrongly",
      "socket",
      [(k) => arrive(k, { statistics: statistics({ rxInvalidDescriptors: 3 }) })],
      /3 addresses .* are none of its frame memory/,
    ],
    [
      "too-long",
      "socket",
      [(k) => arrive(k, { statistics: statistics({ rxDropped: 5 }) })],
      /5 packets were too long/,
    ],
    [
      "need-wakeup-ignored",
      "socket",
      [
        (k) => arrive(k, { rx: ring(100, 100), tx: ring(60, 0, true) }),
        (k) => (k.cards[0]!.sockets = [fakeSocket({ tx: ring(40, 0, true) })]),
      ],
      /40 frames wait in the transmit ring/,
    ],
    [
      "need-wakeup-ignored",
      "socket",
      [
        (k) =>
          arrive(k, { zeroCopy: true, fill: ring(2048, 0, true), statistics: statistics({ rxDropped: 1 }) }),
        (k) => (k.cards[0]!.sockets = [fakeSocket({ zeroCopy: true, fill: ring(2048, 0, true) })]),
      ],
      /2048 free frames wait in the fill ring/,
    ],
    [
      "wrong-queue",
      "RSS",
      [
        (k) => {
          arrive(k);
          k.cards[0]!.driverCounters = { rx_queue_0_xdp_packets: 0, rx_queue_1_xdp_packets: 100 };
        },
      ],
      /100 of 100 packets arrived on queue 1, and the sockets are on queue 0/,
    ],
    [
      "rss-spreads",
      "RSS",
      [
        (k) => {
          arrive(k, { rx: ring(60, 60) });
          k.cards[0]!.driverCounters = { rx_queue_0_xdp_packets: 60, rx_queue_1_xdp_packets: 40 };
        },
      ],
      /40 of 100 packets arrived on queue 1, and the sockets are on queue 0/,
    ],
    [
      "mtu-too-large",
      "XDP",
      [
        (k) => arrive(k),
        (k) => {
          k.cards[0]!.link = fakeLink({ mtu: 9000 });
          k.cards[0]!.sockets = [];
          k.route = () => ({ kind: "local", ifindex: 1, gateway: null });
        },
      ],
      /MTU of eth0 is 9000/,
    ],
    [
      "rules-left",
      "card filter",
      [
        (k) => arrive(k),
        (k) => {
          const card = k.cards[0]!;
          card.link = fakeLink();
          card.sockets = [];
          card.rss = Array.from({ length: 32 }, () => 0);
          card.rules = new Map([[7, fakeRule(2, 53, 1, 7)]]);
          noSplit();
        },
      ],
      /rule 7 steers to queue 1/,
    ],
    ["nothing-arrives", "link", [() => undefined], /no packet at all arrived on eth0/],
    [
      "promiscuous-off",
      "link",
      [() => undefined, () => undefined, `${PACKET} to 02:00:00:00:00:99`],
      /not promiscuous/,
    ],
    [
      "no-room-in-card",
      "link",
      [(k) => (k.cards[0]!.counters = { rxPackets: 10, rxMissed: 500 })],
      /no room for 500/,
    ],
    [
      "foreign-program",
      "XDP",
      [
        (k) => arrive(k),
        (k) => k.owners.set(77, { id: 77, name: "cilium", holders: [{ pid: 1, command: "agent" }] }),
      ],
      /cilium/,
    ],
    [
      "rule-shadowed",
      "card filter",
      [
        (k) => arrive(k, {}),
        (k) => {
          // Both match a flow of UDP to port 53; the first sends it where another's socket is, which loses it.
          const card = k.cards[0]!;
          card.rules = new Map([
            [2, fakeRule(2, 53, 1, 2)],
            [7, fakeRule(2, 53, 0, 7)],
          ]);
        },
      ],
      /rule 7 \(to queue 0\) matches too, and rule 2 \(to queue 1\) comes first/,
    ],
    [
      "rule-drops",
      "card filter",
      [
        () => undefined,
        (k) => {
          const rule = fakeRule(2, 53, 0, 7);
          // RX_CLS_FLOW_DISC in place of the queue (include/uapi/linux/ethtool.h).
          rule.fill(0xff, 152, 160);
          k.cards[0]!.rules = new Map([[7, rule]]);
        },
      ],
      /drops the packet in the card/,
    ],
    [
      "no-listener",
      "kernel",
      [
        (k) => (k.cards[0]!.counters = { rxPackets: 100 }),
        (k) => {
          toKernel(k);
          k.route = () => ({ kind: "local", ifindex: 1, gateway: null });
        },
      ],
      /nobody listens on udp port 53/,
    ],
    [
      "no-route",
      "kernel",
      [
        (k) => (k.cards[0]!.counters = { rxPackets: 100 }),
        (k) => {
          toKernel(k);
          k.route = () => null;
        },
      ],
      /EHOSTUNREACH/,
    ],
    [
      "link-down",
      "link",
      [() => undefined, (k) => (k.cards[0]!.link = { ...k.cards[0]!.link, carrier: false })],
      /no carrier/,
    ],
  ];
  for (const [name, stage, scene, says] of cases) {
    it(`points at ${stage}, ${name}: ${says.source}`, async () => {
      const { vanish } = await watch(...scene);
      expect([vanish?.stage, vanish?.complaint.name]).toEqual([stage, name]);
      expect(vanish!.complaint.says).toMatch(says);
    });
  }

  it("names a copy that nobody noticed beside the counts: with it, nothing vanishes", async () => {
    const { vanish, explanation } = await watch((kernel) => arrive(kernel, { rx: ring(100, 100) }));
    expect(vanish).toBeNull();
    expect(explanation.complaints.map((each) => each.name)).toContain("copy-mode");
  });

  it("is not muddled by rings whose ends wrapped", async () => {
    const { counted } = await watch(
      (kernel) => arrive(kernel, { rx: ring(50, 50) }),
      (kernel) => (kernel.cards[0]!.sockets = [fakeSocket({ rx: ring(2 ** 32 - 50, 2 ** 32 - 50) })]),
    );
    expect(counted.find((each) => each.name === "handler")!.packets).toBe(100);
  });
});

describe("the card's own filter", () => {
  const row = async (
    before: (card: FakeKernel["cards"][number]) => void,
    counter: Record<string, number> = {},
  ): Promise<{ packets: number | null; says: string }> => {
    const { counted } = await watch(
      (kernel) => {
        arrive(kernel, { rx: ring(100, 100) });
        kernel.cards[0]!.driverCounters = { ...kernel.cards[0]!.driverCounters, ...counter };
      },
      (kernel) => before(kernel.cards[0]!),
    );
    // Its place is that of the stage.
    expect(counted.map(({ name }) => name)).toEqual(STAGES);
    return counted.find(({ name }) => name === "card filter")!;
  };
  const rules = (card: FakeKernel["cards"][number]): void => {
    card.rules = new Map([[7, fakeRule(2, 53, 0, 7)]]);
    card.driverCounters = { "fdir_sb_match.nic": 5 };
  };

  it("is counted by the driver's counter of what rules matched", async () => {
    expect(await row(rules, { "fdir_sb_match.nic": 45 })).toMatchObject({
      packets: 40,
      says: "40 matched by the one ntuple rule",
    });
  });

  const cases: [string, (card: FakeKernel["cards"][number]) => void, RegExp][] = [
    ["the card has none", (card) => (card.rules = null), /has no ntuple rules/],
    ["none is set", () => undefined, /no ntuple rule is set/],
    [
      "they are switched off",
      (card) => {
        rules(card);
        card.features["rx-ntuple-filter"] = {
          active: false,
          requested: false,
          available: true,
          fixed: false,
        };
      },
      /switched off/,
    ],
    [
      "the driver does not count them",
      (card) => {
        rules(card);
        card.driverCounters = {};
      },
      /^ice does not count what the one ntuple rule matched$/,
    ],
  ];
  for (const [why, before, says] of cases) {
    it(`says why nothing is counted: ${why}`, async () => {
      const { packets, says: said } = await row(before);
      expect(packets).toBeNull();
      expect(said).toMatch(says);
    });
  }

  it.each([
    ["ixgbe", "fdir_match"],
    ["i40e", "port.fdir_sb_match"],
    ["ice", "fdir_sb_match.nic"],
  ])("has a name of its own at %s: %s", (_, name) => {
    expect(
      ruleCounter([
        { name: "fdir_miss", value: 1 },
        { name, value: 7 },
      ]),
    ).toBe(7);
    expect(ruleCounter([{ name: "fdir_miss", value: 1 }])).toBeNull();
    expect(ruleCounter(null)).toBeNull();
  });
});

describe("a card that changes meanwhile", () => {
  const fails = async (happen: Parameters<typeof watch>[0]): Promise<BifurcateError> => {
    try {
      await watch(happen);
    } catch (thrown) {
      return thrown as BifurcateError;
    }
    throw new Error("it was judged all the same");
  };

  it("is told: what was changed, from what to what", async () => {
    const error = await fails((kernel) => {
      const card = kernel.cards[0]!;
      card.link = { ...card.link, mtu: 9000 };
      card.now = { ...card.now, combined: 1 };
    });
    expect(error.code).toBe("E_CHANGED_UNDERNEATH");
    expect(error.why).toBe("the card changed meanwhile: MTU: 1500, now 9000; queues: 2, now 1");
  });

  it("or is gone", async () => {
    expect((await fails((kernel) => void kernel.cards.pop())).code).toBe("E_INTERFACE_GONE");
    const replaced = await fails((kernel) => {
      kernel.cards[0]!.link = { ...kernel.cards[0]!.link, index: 9 };
    });
    expect([replaced.code, replaced.why]).toEqual(["E_INTERFACE_GONE", "another card has its name now"]);
  });
});

describe("drivers' names of a queue's packets", () => {
  const cases: [string, string][] = [
    ["veth", "rx_queue_1_xdp_packets"],
    ["virtio_net and igb", "rx_queue_1_packets"],
    ["ixgbe, i40e", "rx-1.packets"],
    ["mlx5 and virtio_net", "rx1_packets"],
    ["ena", "queue_1_rx_cnt"],
  ];
  for (const [driver, name] of cases) {
    it(`of ${driver}: ${name}`, () => {
      expect([
        ...queueCounters([
          { name: "other", value: 1 },
          { name, value: 7 },
        ]),
      ]).toEqual([[1, 7]]);
    });
  }
  it("of a driver that has none", () => expect(queueCounters(null).size).toBe(0));
});
