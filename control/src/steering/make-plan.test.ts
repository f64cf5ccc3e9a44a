// Plans: which path, what is said about the ones not taken, who is in the way.
import { describe, expect, it } from "vitest";
import { BifurcateError, type ErrorCode } from "../errors.js";
import { readFacts, type Facts } from "../facts/facts.js";
import type { SocketFacts } from "../kernel.js";
import { fakeFlow } from "../testing/fake-flow.js";
import { fakeCard, fakeLink, FakeKernel, type FakeCard } from "../testing/fake-kernel.js";
import { makePlan } from "./make-plan.js";
import type { Plan, SplitRequest } from "./plan.js";
import { renderPlan } from "./render.js";

function facts(card: FakeCard = fakeCard(), change: Partial<Facts> = {}): Facts {
  const kernel = new FakeKernel([card]);
  return { ...readFacts(kernel, kernel.netns, card.link.name), ...change };
}

function plan(about: Facts, request: Partial<SplitRequest> = {}): Plan {
  return makePlan(about, { ifname: "eth0", flows: ["port 53"], ...request }, fakeFlow);
}

function failure(make: () => unknown): BifurcateError {
  try {
    make();
  } catch (thrown) {
    if (thrown instanceof BifurcateError) return thrown;
    throw thrown;
  }
  throw new Error("it did not fail");
}

const veth = (change: Partial<FakeCard> = {}): FakeCard =>
  fakeCard({
    link: fakeLink({ kind: "veth" }),
    driver: { driver: "veth", version: "", firmware: "", bus: "" },
    rss: null,
    rules: null,
    capacity: 0,
    xdpFeatures: {
      features: ["basic", "redirect", "ndo-xmit", "rx-sg"],
      zeroCopyMaxSegments: 1,
      rxMetadata: [],
    },
    ...change,
  });

const socket = (change: Partial<SocketFacts>): SocketFacts => ({
  protocol: "tcp",
  family: 4,
  localAddress: "10.0.0.1",
  localPort: 22,
  remoteAddress: "10.0.0.9",
  remotePort: 40000,
  state: "established",
  inode: 7,
  ...change,
});

describe("the path", () => {
  it("is an own queue, zero-copy, where the card steers: RSS carved out, rule at a free place", () => {
    const made = plan(facts());
    expect(made.path).toMatchObject({
      kind: "own-queue",
      backend: "af_xdp",
      mode: "driver",
      queues: [3],
      zeroCopy: "prefer",
      steering: "ntuple",
      rules: [15],
    });
    expect(made.steps.map((step) => step.apply.kind)).toEqual(["rss", "ntuple"]);
    const rss = made.steps[0];
    expect(rss?.apply).toMatchObject({ indirection: Array.from({ length: 32 }, (_, i) => i % 3) });
    expect(rss?.undo).toEqual({ kind: "rss", indirection: null });
    expect(made.guardian).toBe(true);
  });

  it("needs no lasting setting on veth, shares all queues, and says why it copies", () => {
    const made = plan(facts(veth()));
    expect(made.path).toMatchObject({
      kind: "shared-queues",
      queues: [0, 1, 2, 3],
      zeroCopy: "off",
      steering: "xdp",
    });
    expect(made.steps).toEqual([]);
    expect(made.guardian).toBe(false);
    expect(made.warnings.join()).toContain("shared with the kernel");
    expect(made.notes.join()).toContain("veth has no ntuple rules");
  });

  it("is zero-copy only where the queue is not shared: require on shared queues is an error", () => {
    expect(failure(() => plan(facts(veth()), { zeroCopy: "require" })).code).toBe("E_NO_ZERO_COPY");
    const noRules = fakeCard({ rules: null, capacity: 0 });
    expect(plan(facts(noRules)).path.zeroCopy).toBe("off");
    expect(failure(() => plan(facts(noRules), { zeroCopy: "require" })).code).toBe("E_NO_ZERO_COPY");
    expect(plan(facts(noRules), { flows: ["all"], zeroCopy: "require" }).path).toMatchObject({
      kind: "whole-card",
      zeroCopy: "require",
    });
  });

  it("steps down aloud: no XDP of the driver's own, then a refused generic mode, down to AF_PACKET", () => {
    const e1000e = fakeCard({
      driver: { driver: "e1000e", version: "", firmware: "", bus: "" },
      xdpFeatures: { features: [], zeroCopyMaxSegments: 0, rxMetadata: [] },
    });
    const generic = plan(facts(e1000e));
    expect(generic.path).toMatchObject({
      backend: "af_xdp",
      mode: "generic",
      zeroCopy: "off",
      multiBuffer: true,
    });
    expect(generic.warnings.join()).toContain("not AF_XDP in driver mode: the driver e1000e has no XDP");
    const packet = plan(facts(e1000e), {
      avoid: [{ backend: "af_xdp", mode: "generic", why: "EOPNOTSUPP" }],
    });
    expect(packet.path).toMatchObject({ backend: "af_packet", mode: null, steering: "packet-socket" });
    expect(packet.ladder.map((rung) => rung.taken)).toEqual([false, false, true]);
    expect(failure(() => plan(facts(e1000e), { mode: "driver" })).code).toBe("E_NO_XDP");
    const old = {
      backend: "af_xdp",
      mode: null,
      why: "no bpf_xdp_load_bytes",
      code: "E_KERNEL_TOO_OLD",
    } as const;
    expect(plan(facts(), { avoid: [old] }).path.backend).toBe("af_packet");
    expect(failure(() => plan(facts(), { avoid: [old], backend: "af_xdp" })).code).toBe("E_KERNEL_TOO_OLD");
    const none = { backend: "af_packet", mode: null, why: "ENODEV" } as const;
    const gone = failure(() => plan(facts(), { avoid: [none], backend: "af_packet" }));
    expect([gone.code, gone.why]).toEqual(["E_DEVICE_FAILED", expect.stringContaining("ENODEV")]);
  });

  it("leaves driver mode where the MTU is too large for it, and stays where frames may have several buffers", () => {
    const igc = fakeCard({
      link: fakeLink({ mtu: 9000 }),
      driver: { driver: "igc", version: "", firmware: "", bus: "" },
    });
    expect(plan(facts(igc)).path.mode).toBe("generic");
    expect(failure(() => plan(facts(igc), { mode: "driver" })).code).toBe("E_MTU");
    const made = plan(facts(veth({ link: fakeLink({ kind: "veth", mtu: 9000 }) })));
    expect(made.path).toMatchObject({ mode: "driver", multiBuffer: true });
  });

  it("adds a queue to a card that uses only one, and takes it away again", () => {
    const made = plan(facts(fakeCard({}, 1, 8)));
    expect(made.path.queues).toEqual([1]);
    expect(made.steps[0]).toMatchObject({
      apply: { kind: "channels", channels: { combined: 2 } },
      undo: { kind: "channels", channels: { combined: 1 } },
    });
    expect(plan(facts(fakeCard({}, 1, 1))).path.kind).toBe("shared-queues");
  });

  it("takes a queue that RSS leaves alone, changing no table", () => {
    const card = fakeCard({ rss: Array.from({ length: 32 }, (_, i) => i % 2), rssUser: true });
    const made = plan(facts(card));
    expect(made.path.queues).toEqual([2]);
    expect(made.steps.map((step) => step.apply.kind)).toEqual(["ntuple"]);
  });

  it("keeps a user's weights, and puts exactly his table back", () => {
    const table = Array.from({ length: 32 }, (_, i) => (i < 20 ? 0 : i < 26 ? 1 : i < 30 ? 2 : 3));
    const rss = plan(facts(fakeCard({ rss: table, rssUser: true }))).steps[0];
    expect(rss?.undo).toEqual({ kind: "rss", indirection: table });
    const carved = rss?.apply.kind === "rss" ? (rss.apply.indirection ?? []) : [];
    expect(carved.slice(0, 30)).toEqual(table.slice(0, 30));
    expect(carved).not.toContain(3);
  });

  it("knows igb's way of making a table, and restores it as the driver's", () => {
    const blocks = Array.from({ length: 32 }, (_, i) => Math.floor((i * 4) / 32));
    const made = plan(facts(fakeCard({ rss: blocks, rssStyle: "blocks" })));
    expect(made.steps[0]?.undo).toEqual({ kind: "rss", indirection: null });
  });

  it("is shared where the rules do not fit, and says so", () => {
    const full = plan(facts(fakeCard({ capacity: 1 })), { flows: ["long port 53"] });
    expect(full.path.kind).toBe("shared-queues");
    expect(full.notes.join()).toContain("need 2 ntuple rules and the card has 1 left");
  });
});

describe("VLAN tags", () => {
  it("are made visible where a flow looks at them, or VLAN devices sit on the card", () => {
    const off = { kind: "feature", feature: "rx-vlan-hw-parse", on: false };
    expect(plan(facts(), { flows: ["vlan port 53"] }).steps[0]?.apply).toEqual(off);
    const vlan = fakeLink({ index: 9, name: "eth0.7", kind: "vlan", link: 2, vlanId: 7 });
    expect(plan(facts(fakeCard(), { vlans: [vlan] })).steps[0]?.apply).toEqual(off);
    expect(plan(facts()).steps.some((step) => step.apply.kind === "feature")).toBe(false);
  });

  it("that the card's own filter drops are told", () => {
    const on = { active: true, requested: true, available: true, fixed: true };
    const card = fakeCard({ features: { "rx-vlan-filter": on } });
    const vlan = fakeLink({ index: 9, name: "eth0.7", kind: "vlan", link: 2, vlanId: 7 });
    const warnings = (...[flows, vlans]: [string, (typeof vlan)[]]): string =>
      plan(facts(card, { vlans }), { flows: [flows] }).warnings.join();
    expect(warnings("vlan port 53", [])).toContain(
      "VLAN devices on it (there are none): rx-vlan-filter is on",
    );
    expect(warnings("vlan port 53", [vlan])).toContain("VLAN devices on it (7): rx-vlan-filter is on");
    expect(warnings("port 53", [vlan])).not.toContain("rx-vlan-filter");
  });

  it("are a reason to refuse where stripping is fixed", () => {
    const fixed = { active: true, requested: true, available: true, fixed: true };
    const card = fakeCard({ features: { "rx-vlan-hw-parse": fixed } });
    expect(failure(() => plan(facts(card), { flows: ["vlan port 53"] })).code).toBe("E_FEATURE_FIXED");
    expect(plan(facts(card), { flows: ["vlan port 53"], backend: "af_packet" }).path.backend).toBe(
      "af_packet",
    );
  });
});

describe("long frames", () => {
  const noSegments = {
    features: ["basic", "redirect", "ndo-xmit", "xsk-zerocopy"],
    zeroCopyMaxSegments: 1,
    rxMetadata: [],
  };
  const igb = (mtu: number): Facts =>
    facts(
      fakeCard({
        link: fakeLink({ mtu }),
        driver: { driver: "igb", version: "", firmware: "", bus: "0000:01:00.0" },
        rules: null,
        capacity: 0,
        xdpFeatures: noSegments,
      }),
    );

  it("fit one frame of the pool up to an MTU of 1,766, without a copy too", () => {
    const { path } = plan(igb(1766), { flows: ["all"] });
    expect(path).toMatchObject({ zeroCopy: "prefer", multiBuffer: false, fragments: false });
  });

  it("take several frames above it, with a copy, where the driver itself needs one buffer only", () => {
    const made = plan(igb(3046), { flows: ["all"] });
    expect(made.path).toMatchObject({ mode: "driver", zeroCopy: "off", multiBuffer: true, fragments: false });
    expect(made.warnings.join()).toContain("takes one buffer a frame: up to 1766");
  });

  it("may come in several buffers where the driver says so", () => {
    const about = facts(veth({ link: fakeLink({ kind: "veth", mtu: 9000 }) }));
    expect(plan(about).path).toMatchObject({ multiBuffer: true, fragments: true });
  });

  it("that the driver's XDP cannot take are why there is no zero-copy, with the largest MTU that it can", () => {
    const error = failure(() => plan(igb(9000), { flows: ["all"], zeroCopy: "require" }));
    expect(error.code).toBe("E_NO_ZERO_COPY");
    expect(error.why).toContain("igb takes XDP up to 3046");
    expect(failure(() => plan(igb(9000), { mode: "driver" })).code).toBe("E_MTU");
  });
});

describe("a queue lease", () => {
  const lease = { steering: "lease" } as const;

  it("is the own queue, lent to a netkit device between the carve-out and the rule, and taken back by deleting it", () => {
    const made = plan(facts(), lease);
    expect(made.path).toMatchObject({
      kind: "own-queue",
      queues: [3],
      zeroCopy: "require",
      steering: "ntuple",
    });
    expect(made.path.lease).toMatch(/^bflease-[0-9a-f]{6}$/);
    const at = made.steps.findIndex((step) => step.apply.kind === "lease");
    expect(made.steps.map((step) => step.apply.kind)).toEqual(["rss", "lease", "ntuple"]);
    const about = { kind: "lease", name: made.path.lease, queues: [3] };
    expect(made.steps[at]).toMatchObject({
      when: "before",
      apply: { ...about, present: true },
      undo: { ...about, present: false },
    });
    expect(made.guardian).toBe(true);
    expect(renderPlan(made)).toContain(`leased to ${made.path.lease}`);
    expect(renderPlan(made)).toContain(`undo: ip link del ${made.path.lease}`);
  });

  it("is no part of a plan that did not ask for one", () => {
    expect(plan(facts()).path.lease).toBeNull();
    expect(plan(facts()).steps.some((step) => step.apply.kind === "lease")).toBe(false);
  });

  it("leaves alone the queues that are lent out already, asked for or not", () => {
    const about = facts(fakeCard({ leases: new Map([[3, "nk0"]]) }));
    expect(plan(about, lease).path.queues).toEqual([2]);
    expect(plan(about).path.queues).toEqual([2]);
  });

  it.each<[string, Partial<FakeCard>, Partial<Facts>, Partial<SplitRequest>, string]>([
    ["an old kernel", {}, { leases: { kernel: false, queues: [] } }, {}, "Linux 7.1"],
    ["no rules", { rules: null, capacity: 0 }, {}, {}, "has no ntuple rules"],
    [
      "no zero-copy",
      { xdpFeatures: { features: ["basic", "redirect"], zeroCopyMaxSegments: 0, rxMetadata: [] } },
      {},
      {},
      "no zero-copy",
    ],
    ["generic mode", {}, {}, { mode: "generic" }, "generic mode always copies"],
    ["AF_PACKET", {}, {}, { backend: "af_packet" }, "AF_PACKET always copies"],
    ["the whole card", {}, {}, { flows: ["all"] }, "the whole card was asked for"],
  ])("is E_NO_LEASE with %s", (_, card, change, request, why) => {
    const error = failure(() => plan(facts(fakeCard(card), change), { ...lease, ...request }));
    expect([error.code, error.status]).toEqual(["E_NO_LEASE", 77]);
    expect(error.why).toContain(why);
  });

  it("is E_NO_LEASE on a virtual device, and E_BAD_OPTION where a copy was asked for", () => {
    expect(failure(() => plan(facts(veth()), lease)).why).toContain("virtual device (veth)");
    expect(failure(() => plan(facts(), { ...lease, zeroCopy: "off" })).code).toBe("E_BAD_OPTION");
  });
});

describe("conflicts", () => {
  it("name the owner of somebody else's XDP program, and displace nobody", () => {
    const kernel = new FakeKernel([fakeCard({ link: fakeLink({ xdp: { mode: "driver", programId: 42 } }) })]);
    kernel.owners.set(42, { id: 42, name: "xdp_lb", holders: [{ pid: 311, command: "balancer" }] });
    const about = readFacts(kernel, kernel.netns, "eth0");
    const error = failure(() => plan(about));
    expect(error.code).toBe("E_FOREIGN_XDP");
    expect(error.why).toContain("42 (xdp_lb), held by balancer (pid 311)");
    expect(plan(about, { backend: "af_packet" }).warnings.join()).toContain("sees the frames first");
  });

  it("name the split that has the flow", () => {
    const other = { id: "eth0-1", pid: 99, flows: ["port 53"], backend: "af_packet", queues: [0] } as const;
    const error = failure(() => plan(facts(fakeCard(), { otherSplits: [other] })));
    expect(error.code).toBe("E_FLOW_TAKEN");
    expect(error.why).toContain("eth0-1 (pid 99)");
    expect(plan(facts(fakeCard(), { otherSplits: [other] }), { flows: ["port 54"] }).path.kind).toBe(
      "own-queue",
    );
  });

  it("refuse the SSH session in use unless forced", () => {
    const session = { socket: socket({}), known: "own" } as const;
    const about = facts(fakeCard(), { sessions: [session] });
    const error = failure(() => plan(about, { flows: ["port 22"] }));
    expect(error.code).toBe("E_OWN_SESSION");
    expect(error.why).toContain("10.0.0.9:40000 to 10.0.0.1:22");
    expect(failure(() => plan(about, { flows: ["all"] })).code).toBe("E_OWN_SESSION");
    expect(plan(about, { flows: ["port 22"], force: true }).warnings.join()).toContain("--force");
    expect(plan(about).warnings.join()).not.toContain("SSH");
  });

  it("warn of a listener that goes deaf, by name", () => {
    const listener = {
      socket: socket({ protocol: "udp", localPort: 53, state: "other" }),
      holder: "named (pid 5)",
    };
    const about = facts(fakeCard(), { listeners: [listener] });
    expect(plan(about).warnings.join()).toContain("named (pid 5) listens on udp 10.0.0.1:53");
    expect(plan(about, { flows: ["port 54"] }).warnings.join()).not.toContain("named");
  });
});

describe("bad requests", () => {
  it.each<[ErrorCode, Partial<SplitRequest>]>([
    ["E_NO_FLOW", { flows: [] }],
    ["E_NO_FLOW", { flows: undefined as never }],
    ["E_FLOW_SYNTAX", { flows: ["nonsense"] }],
    ["E_NO_SUCH_QUEUE", { queues: [4] }],
    ["E_NO_SUCH_QUEUE", { queues: 9 }],
    ["E_BAD_OPTION", { queues: 0 }],
    ["E_BAD_OPTION", { queues: [] }],
    ["E_BAD_OPTION", { queues: [1, 1] }],
  ])("%s", (code, request) => {
    expect(failure(() => plan(facts(), request)).code).toBe(code);
  });

  it("E_INTERFACE_DOWN, E_NOT_ETHERNET, E_NO_SUCH_INTERFACE", () => {
    expect(failure(() => plan(facts(fakeCard({ link: fakeLink({ up: false }) })))).code).toBe(
      "E_INTERFACE_DOWN",
    );
    expect(failure(() => plan(facts(fakeCard({ link: fakeLink({ ethernet: false }) })))).code).toBe(
      "E_NOT_ETHERNET",
    );
    const kernel = new FakeKernel([fakeCard()]);
    const error = failure(() => readFacts(kernel, kernel.netns, "eth9"));
    expect(error.code).toBe("E_NO_SUCH_INTERFACE");
    expect(error.why).toContain("eth0");
  });
});

describe("a plan", () => {
  it("tells what a drivers' attach costs and whose view of the flow ends", () => {
    const igb = facts(fakeCard({ driver: { driver: "igb", version: "", firmware: "", bus: "" } }));
    expect(plan(igb).outages[0]).toMatchObject({ seconds: 3 });
    expect(plan(igb).bypasses.join()).toMatch(/nftables.*tracking.*tcpdump.*accounting/);
    expect(plan(igb, { tap: true }).bypasses.join()).not.toContain("tcpdump");
  });

  it("says what a handler can learn of a frame beyond its bytes, and what not", () => {
    const lines = (backend: "af_xdp" | "af_packet", metadata: boolean): string[] =>
      renderPlan(plan(facts(), { backend, metadata }))
        .split("\n")
        .filter((line) => /^ {2}(hash|vlan|timestamp): /.test(line));
    expect(lines("af_xdp", true)).toEqual(
      ["hash", "vlan", "timestamp"].map(
        (name) => `  ${name}: not available: the driver ice does not give it to XDP`,
      ),
    );
    expect(lines("af_packet", false)[0]).toBe("  hash: not available: it was not asked for");
    expect(lines("af_packet", true)).toEqual([
      "  hash: the kernel's flow hash",
      expect.stringContaining("vlan: not available: a tag that was taken off is put back"),
      expect.stringContaining("timestamp: the kernel's clock"),
    ]);
  });

  it("asks the driver for what it knows of a frame, where that is wanted and can be had", () => {
    const knows = (...rxMetadata: string[]): Partial<FakeCard> => ({
      xdpFeatures: { features: ["basic", "redirect"], zeroCopyMaxSegments: 0, rxMetadata },
    });
    const mlx5 = facts(fakeCard(knows("hash", "timestamp", "vlan-tag")));
    expect(plan(mlx5, { metadata: true }).path).toMatchObject({
      hints: ["hash", "timestamp", "vlan"],
      metadata: { timestamp: expect.stringMatching(/^the card's clock/) as string },
    });
    expect(plan(mlx5, { metadata: ["vlan"] }).path).toMatchObject({
      hints: ["vlan"],
      metadata: { hash: "not available: the driver has it, and it was not asked for" },
    });
    expect(plan(mlx5).path.hints).toEqual([]);
    const some = facts(fakeCard(knows("hash")));
    expect(plan(some, { metadata: true }).path.hints).toEqual(["hash"]);
    expect(plan(some, { metadata: true, mode: "generic" }).path).toMatchObject({
      hints: [],
      metadata: { hash: "not available: in generic mode the driver cannot be asked" },
    });
    const old = facts(fakeCard({ xdpFeatures: null }));
    expect(plan(old, { metadata: true }).path.metadata.hash).toMatch(
      /^not available: the kernel does not say/,
    );
    const virtual = facts(veth(knows("hash", "timestamp", "vlan-tag")));
    expect(plan(virtual, { metadata: true }).path).toMatchObject({
      hints: ["hash", "vlan"],
      metadata: { timestamp: "not available: a veth has no clock" },
    });
  });

  it("survives JSON and prints itself with each command and its undo", () => {
    const made = plan(facts());
    expect(JSON.parse(JSON.stringify(made))).toEqual(made);
    const text = renderPlan(made);
    expect(text).toContain("own queue (queue 3), AF_XDP in driver mode");
    expect(text).toContain("ethtool -X eth0 weight 11 11 10; undo: ethtool -X eth0 default");
    expect(text).toContain("undo: ethtool -N eth0 delete 15");
  });

  it("switches LRO off for good only as a step that is undone", () => {
    const on = { active: true, requested: true, available: true, fixed: false };
    const card = fakeCard({ features: { "rx-lro": on, "rx-gro-hw": on } });
    const words = (made: Plan): string[] =>
      made.steps.flatMap((step) => (step.apply.kind === "feature" ? [step.apply.feature] : []));
    expect(words(plan(facts(card), { mode: "driver" }))).toEqual(["rx-lro"]);
    expect(words(plan(facts(card), { mode: "generic" }))).toEqual(["rx-lro", "rx-gro-hw"]);
    expect(words(plan(facts(card), { backend: "af_packet" }))).toEqual([]);
  });

  it("writes a filter at tc ingress down as a step where the kernel has no tcx, to be undone when we are killed", () => {
    const old = plan(
      { ...facts(), ingress: { tcx: false, clsact: false, filters: [] } },
      { backend: "af_packet" },
    );
    const filter = {
      kind: "ingress-filter",
      name: expect.stringMatching(/^bifurcate-[0-9a-f]{6}$/),
      qdisc: true,
    };
    expect(old.steps).toMatchObject([
      { when: "before", apply: { ...filter, present: true }, undo: { ...filter, present: false } },
    ]);
    expect(old.guardian).toBe(true);
    expect(plan(facts(), { backend: "af_packet" })).toMatchObject({ steps: [], guardian: false });
  });
});
