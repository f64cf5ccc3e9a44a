// A packet's way worked out from facts: each stage deciding, and each complaint by a card with that one fault.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bootId, ownIdentity } from "../facts/processes.js";
import { compile } from "../steering/rules/compile.js";
import { encodeRule, sieve } from "../steering/rules/index.js";
import { fakeFiles } from "../testing/fake-files.js";
import { fakeCard, FakeKernel, fakeLink, fakeSocket, type FakeCard } from "../testing/fake-kernel.js";
import { explainPacket, type Explanation } from "./explain.js";
import { readExplainFacts, XDP } from "./facts.js";
import { parsePacket } from "./packet/line.js";
import type { StageName } from "./stages/stage.js";

const PACKET = "udp 192.0.2.2:4242 > 192.0.2.1:53";
const MICROSOFT = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa";
let folder = "";
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "bifurcate-explain-"))));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Scene {
  readonly card?: Partial<FakeCard>;
  readonly kernel?: (kernel: FakeKernel) => void;
  readonly packet?: string;
  /** A split on the card: live, with a program unless it is through AF_PACKET, or dead. */
  readonly split?: {
    readonly queues: readonly number[];
    readonly dead?: true;
    readonly backend?: "af_packet";
  };
}

/** Number of the split's program. */
const OURS = 77;

function explain({ card = {}, kernel: change, packet = PACKET, split }: Scene): Explanation {
  const program = split !== undefined && split.dead !== true && split.backend === undefined;
  const link = fakeLink({ ...card.link, ...(program ? { xdp: { mode: "driver", programId: OURS } } : {}) });
  const made = fakeCard({ rssKey: MICROSOFT, hashFields: { udp4: 0xf0 }, ...card, link });
  const kernel = new FakeKernel([made]);
  kernel.route = () => ({ kind: "local", ifindex: 1, gateway: null });
  kernel.socketList = [
    {
      protocol: "udp",
      family: 4,
      localAddress: "0.0.0.0",
      localPort: 53,
      remoteAddress: "0.0.0.0",
      remotePort: 0,
      state: "listen",
      inode: 99,
    },
  ];
  const directory = mkdtempSync(join(folder, "state-"));
  if (split !== undefined) {
    const path = { backend: split.backend ?? "af_xdp", queues: split.queues };
    const journal = {
      version: 1,
      id: "eth0-1a2b3c",
      created: "2026-01-01T00:00:00Z",
      bootId: split.dead === true ? "another" : bootId(),
      owner: ownIdentity(),
      guardian: null,
      netns: { path: "/proc/self/ns/net", inode: kernel.netns.inode },
      plan: { device: { ifindex: 2, name: "eth0" }, steps: [], flows: ["udp dst port 53"], path },
      steps: [],
      confirmBy: null,
    };
    writeFileSync(join(directory, "eth0-1a2b3c.json"), JSON.stringify(journal));
    const holders = [{ pid: process.pid, command: "node" }];
    kernel.owners.set(OURS, { id: OURS, name: "bifurcate", holders });
    kernel.programs.set(OURS, {
      verdict: (_, queue) => (split.queues.includes(queue) ? XDP.redirect : XDP.pass),
      runs: 0,
    });
  }
  change?.(kernel);
  const facts = readExplainFacts(
    kernel,
    kernel.netns,
    fakeFiles(),
    "eth0",
    { packet: parsePacket(packet) },
    directory,
  );
  return explainPacket(facts);
}

const says = (explanation: Explanation, stage: StageName): string =>
  explanation.stages.find((each) => each.name === stage)!.says;
const names = (explanation: Explanation): string[] => explanation.complaints.map((each) => each.name);
/** The rule that a card takes for an expression. */
function rule(expression: string, queue: number, location: number): Uint8Array {
  const found = sieve(compile(expression).tree);
  if (found.kind === "none") throw new Error(found.reason);
  return encodeRule(
    found.rules.find((each) => each.type.endsWith("4"))!,
    queue,
    location,
  ).bytes;
}
const socketOn = (queue: number): ReturnType<typeof fakeSocket> =>
  fakeSocket({
    queue,
    inode: 4711 + queue,
    holders: [{ pid: process.pid, command: "node", fills: true }],
    zeroCopy: true,
  });

describe("the stages", () => {
  it("a card that nobody splits: the kernel's own path, to its listener", () => {
    const way = explain({});
    expect(way.ends).toBe("kernel");
    expect(says(way, "link")).toBe("up, MTU 1500; the frame is to the card's address");
    expect(says(way, "card filter")).toBe("none of 0 ntuple rules matches");
    // Toeplitz with the published key over both addresses and ports, by the table i mod 4.
    expect(says(way, "RSS")).toMatch(
      /^Toeplitz hash 0x[0-9a-f]{8} over udp4 fields, entry \d+ of 32: queue [0-3]$/,
    );
    expect(says(way, "XDP")).toBe("no program is attached");
    expect(says(way, "kernel")).toMatch(
      /192\.0\.2\.1 is an address of this machine: a socket listens on udp port 53/,
    );
    expect(names(way)).toEqual([]);
  });

  it("RSS: the queue is the table's entry at the hash's place, of any table", () => {
    const [, hash] = /0x([0-9a-f]{8})/.exec(says(explain({}), "RSS"))!;
    const entry = Number.parseInt(hash!, 16) % 128;
    const table = Array.from({ length: 128 }, (_, n) => (n === entry ? 3 : 0));
    const way = explain({ card: { rss: table } });
    expect(way.queues).toEqual([3]);
    expect(says(way, "RSS")).toContain(`entry ${entry} of 128: queue 3`);
  });

  it("RSS: what the card does not hash does not count", () => {
    const two = { hashFields: { udp4: 0x30 } } as const;
    const queues = [1, 2, 3, 4, 5].map(
      (port) => explain({ card: two, packet: `udp 192.0.2.2:${port} > 192.0.2.1:53` }).queues,
    );
    expect(new Set(queues.map(String)).size).toBe(1);
    expect(says(explain({ card: { hashFields: {} } }), "RSS")).toContain("ice does not tell what it hashes");
  });

  it("RSS: a card without a table, one with another hash, and veth", () => {
    expect(explain({ card: { rss: null } }).queues).toEqual([0, 1, 2, 3]);
    expect(says(explain({ card: { rss: null, link: fakeLink({ kind: "veth" }) } }), "RSS")).toMatch(
      /^veth has no RSS/,
    );
    expect(says(explain({ card: { rssKey: "" } }), "RSS")).toContain("does not tell its key");
  });

  it("a rule of the card chooses the queue; the lowest location that matches comes first", () => {
    const rules = new Map([
      [5, rule("udp dst port 53", 3, 5)],
      [2, rule("udp dst port 99", 1, 2)],
    ]);
    const way = explain({ card: { rules, sockets: [socketOn(3)] }, split: { queues: [3] } });
    expect(says(way, "card filter")).toBe("rule 5 matches: to queue 3");
    expect(says(way, "RSS")).toBe("not asked: a rule chose the queue");
    expect(says(way, "XDP")).toMatch(
      /program 77 \(driver\) of the split eth0-1a2b3c, run on this frame: redirects .* queue 3/,
    );
    expect(says(way, "socket")).toBe(
      `queue 3: node (pid ${process.pid}), zero-copy, 2048 frames to fill, 0 unread`,
    );
    expect(says(way, "lease")).toMatch(/^none/);
    expect(says(way, "handler")).toMatch(/^the split eth0-1a2b3c \(pid \d+\): dropped, unless/);
    expect(says(way, "kernel")).toMatch(/^not asked/);
    expect([way.ends, names(way)]).toEqual(["user", []]);
  });

  it("a lease of the kernel is named", () => {
    const leases = new Map([[3, "nk0"]]);
    const rules = new Map([[5, rule("udp dst port 53", 3, 5)]]);
    const way = explain({ card: { rules, leases, sockets: [socketOn(3)] }, split: { queues: [3] } });
    expect(says(way, "lease")).toContain("lends queue 3 to a virtual interface");
  });

  it("a split through AF_PACKET takes the flow without a program", () => {
    const way = explain({ split: { queues: [], backend: "af_packet" } });
    expect([way.ends, says(way, "socket")]).toEqual(["user", expect.stringContaining("AF_PACKET")]);
    expect(
      explain({ split: { queues: [], backend: "af_packet" }, packet: PACKET.replace(":53", ":54") }).ends,
    ).toBe("kernel");
  });

  it("the kernel's path: forwarded, refused, ARP", () => {
    const forwarded = explain({
      kernel: (kernel) => (kernel.route = () => ({ kind: "unicast", ifindex: 5, gateway: "192.0.2.9" })),
    });
    expect(says(forwarded, "kernel")).toBe("forwarded out of interface 5, by way of 192.0.2.9");
    expect(says(explain({ packet: "arp 192.0.2.2 > 192.0.2.1" }), "kernel")).toContain("ARP");
  });
});

describe("each complaint, by the fault that it is about", () => {
  const all = [0, 1, 2, 3].map(socketOn);
  const whole = { sockets: all };
  const with0 = (change: Parameters<typeof fakeSocket>[0]): Partial<FakeCard> => ({
    sockets: [{ ...all[0]!, ...change }, ...all.slice(1)],
    rules: new Map([[5, rule("udp dst port 53", 0, 5)]]),
  });
  const ring = (
    producer: number,
    consumer: number,
    needWakeup = false,
  ): ReturnType<typeof fakeSocket>["rx"] => ({
    producer,
    consumer,
    needWakeup,
  });
  const everywhere = { queues: [0, 1, 2, 3] };
  const cases: [string, Scene, RegExp, RegExp | null][] = [
    [
      "wrong-queue",
      {
        card: { rules: new Map([[5, rule("udp dst port 53", 2, 5)]]), sockets: [socketOn(0)] },
        split: { queues: [0] },
      },
      /passes it to the kernel on queue 2: no socket .* \(it has queue 0\)/,
      /steer the flow to queue 0/,
    ],
    [
      "rss-spreads",
      { card: { sockets: [socketOn(0)] }, split: { queues: [0] } },
      /from different ports arrive on queue 0, 1, 2 or 3, and no AF_XDP socket serves queue 1, 2 or 3/,
      /ethtool -N eth0/,
    ],
    [
      "promiscuous-off",
      { packet: `${PACKET} to 02:00:00:00:00:99` },
      /not promiscuous: it drops it/,
      /promisc on/,
    ],
    [
      "copy-mode",
      { card: with0({ zeroCopy: false }), split: everywhere },
      /copies each frame, and ice has zero-copy/,
      /--zero-copy require/,
    ],
    [
      "fill-ring-empty",
      { card: with0({ fill: ring(9, 9), rx: ring(2048, 0) }), split: everywhere },
      /no frame in its fill ring, 2048 frames wait unread/,
      /let them go/,
    ],
    [
      "ring-full",
      { card: with0({ rx: ring(2048, 0) }), split: everywhere },
      /receive ring .* is full/,
      /read it/,
    ],
    [
      "need-wakeup-ignored",
      { card: with0({ tx: ring(7, 0, true) }), split: everywhere },
      /7 frames wait in the transmit ring/,
      /sendto/,
    ],
    [
      "need-wakeup-ignored",
      { card: with0({ fill: ring(7, 0, true) }), split: everywhere },
      /fill ring .* was refilled, and the driver sleeps/,
      /poll/,
    ],
    [
      "umem-shared-wrongly",
      {
        card: with0({ holders: [1, 2].map((pid) => ({ pid, command: "x", fills: true })) }),
        split: everywhere,
      },
      /mapped by the processes 1, 2/,
      /one process fill/,
    ],
    ["mtu-too-large", { card: { link: fakeLink({ mtu: 9000 }) } }, /MTU of eth0 is 9000/, /mtu 1500/],
    [
      "foreign-program",
      {
        card: { link: fakeLink({ xdp: { mode: "driver", programId: 5 } }) },
        kernel: (kernel) =>
          kernel.owners.set(5, { id: 5, name: "cilium", holders: [{ pid: 9, command: "agent" }] }),
      },
      /program 5 \(cilium\), held by agent \(pid 9\)/,
      /xdp off/,
    ],
    ["rules-left", { split: { queues: [3], dead: true } }, /eth0-1a2b3c .* is dead/, /release --stale/],
    [
      "rules-left",
      {
        card: {
          rules: new Map([[5, rule("udp dst port 53", 3, 5)]]),
          rss: Array.from({ length: 32 }, (_, n) => n % 3),
        },
      },
      /rule 5 steers to queue 3/,
      /ethtool -N eth0 delete 5/,
    ],
    [
      "no-socket",
      { card: { link: fakeLink({ xdp: { mode: "driver", programId: 5 } }), sockets: [] } },
      /no AF_XDP socket is seen/,
      /start the program/,
    ],
    ["link-down", { card: { link: fakeLink({ up: false, carrier: false }) } }, /is down/, /set dev eth0 up/],
    [
      "rule-shadowed",
      {
        card: {
          rules: new Map([
            [5, rule("udp dst port 53", 3, 5)],
            [2, rule("udp", 1, 2)],
          ]),
          ...whole,
        },
        split: everywhere,
      },
      /rule 5 \(to queue 3\) matches too, and rule 2 \(to queue 1\) comes first/,
      /delete 2/,
    ],
    [
      "rule-drops",
      {
        card: {
          rules: new Map([
            [
              5,
              Uint8Array.from([
                ...rule("udp dst port 53", 0, 5).subarray(0, 152),
                ...Array<number>(8).fill(0xff),
                5,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
              ]),
            ],
          ]),
        },
      },
      /drops the packet in the card/,
      /delete 5/,
    ],
    ["too-long", { packet: `${PACKET} len 3000` }, /3000 bytes and the MTU is 1500/, /mtu 2986/],
    [
      "flow-differs",
      { card: whole, split: everywhere, packet: PACKET.replace(":53", ":54") },
      /does not match 'udp dst port 53'/,
      /bifurcate explain/,
    ],
    ["no-listener", { packet: PACKET.replace(":53", ":54") }, /nobody listens on udp port 54/, /server/],
    ["no-route", { kernel: (kernel) => (kernel.route = () => null) }, /EHOSTUNREACH/, /ip route get/],
  ];
  for (const [name, scene, what, mend] of cases) {
    it(`${name}: ${what.source}`, () => {
      const { complaints } = explain(scene);
      const found = complaints.find((each) => each.name === name && what.test(each.says));
      expect(found, JSON.stringify(complaints, null, 1)).toBeDefined();
      if (mend !== null) expect(found!.mend).toMatch(mend);
    });
  }

  it("none of them on a split in good order", () => {
    expect(names(explain({ card: whole, split: everywhere }))).toEqual([]);
  });
});
