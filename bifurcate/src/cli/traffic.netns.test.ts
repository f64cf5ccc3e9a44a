// The built command line on real traffic: a stock resolver is answered by examples/dns.ts while TCP stays with the
// kernel, and however the split ends, every setting is as before and the kernel has its flow back.
import { createInterface } from "node:readline";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { inNetns, labDown, labList, labUp, run, spawnIn, type LabCard } from "@bifurcate/lab";
import { cli, cliPath, endAll, RunningSplit, startHere, type StreamEvent } from "@bifurcate/lab/harness";
import { differences, snapshot, type Snapshot } from "@bifurcate/lab/snapshot";

const root = process.getuid?.() === 0;
const has = (program: string): boolean =>
  ["/usr/bin", "/usr/sbin", "/bin"].some((bin) => existsSync(`${bin}/${program}`));
const dns = ["--flow", "udp dst port 53", "--do", "run=examples/dns.ts"];
const name = `u${process.pid}`;
let state = "";
let card: LabCard;
let before: Snapshot;

beforeAll(async () => {
  if (!root) return;
  state = mkdtempSync(path.join(tmpdir(), "bifurcate-cli-"));
  process.env["BIFURCATE_STATE_DIR"] = state;
  card = (await labUp({ name })).cards[0]!;
  before = await snapshot(card.netns, card.ifname);
});

beforeEach(({ skip }) => {
  skip(!root, "needs root: it makes network namespaces");
});

afterEach(endAll);

afterAll(async () => {
  for (const lab of await labList()) await labDown(lab.name);
  if (state !== "") rmSync(state, { recursive: true, force: true });
});

function splitCard(...args: string[]): RunningSplit {
  return new RunningSplit([card.ifname, "--netns", card.netns, ...args]);
}

/** Asks with dig, once; its answer in short form, or what it says when there is none. */
async function dig(server: string, query: string): Promise<string> {
  const args = [`@${server}`, "+short", "+tries=1", "+time=60", ...query.split(" ")];
  return (await run(...inNetns(card.peer.netns, "dig", args))).stdout.trim();
}

/** Listens on a UDP port of the host's kernel, and resolves with the first datagram it is given. */
async function kernelHears(port: number, send: () => Promise<unknown>): Promise<string> {
  const script = `const s = require("dgram").createSocket("udp4");
    s.on("message", (m) => { console.log(m.toString()); s.close(); });
    s.bind(${port}, () => console.log("listening"));`;
  const child = spawnIn(card.netns, process.execPath, ["-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  try {
    await lines.next();
    await send();
    return String((await lines.next()).value);
  } finally {
    child.kill();
  }
}

function sendUdp(port: number, text: string): Promise<unknown> {
  const script = `require("dgram").createSocket("udp4").send("${text}", ${port}, "${card.v4}", () => process.exit())`;
  return run(...inNetns(card.peer.netns, process.execPath, ["-e", script]));
}

/** Everything is as it was before the split, and nothing of it is left. */
async function expectRestored(): Promise<void> {
  expect(differences(before, await snapshot(card.netns, card.ifname))).toEqual([]);
  expect(readdirSync(state).filter((file) => file !== "lab")).toEqual([]);
}

describe("examples/dns.ts on a split card", () => {
  it("answers a stock resolver while iperf3 runs through the kernel on the same card", async ({ skip }) => {
    skip(!has("iperf3") || !has("dig"), "needs iperf3 and dig: apt-get install iperf3 bind9-dnsutils");
    const split = splitCard(...dns);
    const started = await split.event("split");
    expect(started["path"]).toMatchObject({
      backend: "af_xdp",
      mode: "copy",
      steering: "xdp",
      queues: [0, 1, 2, 3],
    });

    const server = spawnIn(card.netns, "iperf3", ["-s", "-1", "--forceflush"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines = createInterface({ input: server.stdout! })[Symbol.asyncIterator]();
    for (;;) if (/listening/.test(String((await lines.next()).value))) break;
    const iperf = run(...inNetns(card.peer.netns, "iperf3", ["-c", card.v4, "-t", "2", "--json"]));

    expect(await dig(card.v4, "www.bifurcate.test A")).toBe("192.0.2.80\n192.0.2.81");
    expect(await dig(card.v6, "www.bifurcate.test AAAA")).toBe("2001:db8::80");
    expect(await dig(card.v4, "bifurcate.test SOA +noedns")).toMatch(/^ns1\.bifurcate\.test\. hostmaster\./);
    const { stdout } = await run(
      ...inNetns(card.peer.netns, "dig", [`@${card.v6}`, "+tries=1", "+time=60", "nowhere.bifurcate.test"]),
    );
    expect(stdout).toContain("status: NXDOMAIN");

    const report = JSON.parse((await iperf).stdout) as { end: { sum_received: { bytes: number } } };
    expect(report.end.sum_received.bytes).toBeGreaterThan(1_000_000);

    const { status, stderr } = await split.end("SIGINT");
    expect([status, stderr]).toEqual([0, ""]);
    const end = await split.event("end");
    expect(end).toMatchObject({ reason: "SIGINT", stats: { received: 4, sent: 4, dropped: 0 } });
    await expectRestored();
  });

  for (const signal of ["SIGTERM", "SIGHUP"] as const) {
    it(`ends in good order on ${signal}, and the kernel has its flow back`, async () => {
      const split = splitCard(...dns);
      await split.event("split");
      expect((await split.end(signal)).status).toBe(0);
      expect(await split.event("end")).toMatchObject({ reason: signal });
      await expectRestored();
      expect(await kernelHears(53, () => sendUdp(53, "hello"))).toBe("hello");
    });
  }

  it("ends in good order when nobody reads its output any more, as `| head` does", async () => {
    const line = `'${process.execPath}' '${cliPath}' split ${card.ifname} --netns ${card.netns} --flow icmp --json | head -n 2`;
    const { status, stdout } = await run("sh", ["-c", line]);
    expect(status).toBe(0);
    expect(stdout.trim().split("\n")).toHaveLength(2);
    await vi.waitFor(async () => expect((await cli("release")).stdout).toBe("there are no splits\n"), 60_000);
    await vi.waitFor(expectRestored, 60_000);
  });

  it("killed with -9 leaves the flow with the kernel, and nothing behind", async () => {
    const split = splitCard(...dns);
    await split.event("split");
    expect((await split.end("SIGKILL")).status).toBeNull();
    expect(await kernelHears(53, () => sendUdp(53, "hello"))).toBe("hello");
    await vi.waitFor(expectRestored, 60_000);
    const next = splitCard(...dns);
    await next.event("split");
    expect((await next.end()).status).toBe(0);
    await expectRestored();
  });
});

describe("native actions", () => {
  it("count takes the flow and nothing else", async () => {
    const split = splitCard("--flow", "udp dst port 9999", "--do", "count");
    await split.event("split");
    await sendUdp(9999, "counted");
    expect(await kernelHears(9998, () => sendUdp(9998, "kept"))).toBe("kept");
    await split.event("rates", ({ stats }) => (stats as { received: number }).received === 1);
    expect((await split.end()).status).toBe(0);
    expect(await split.event("end")).toMatchObject({ stats: { received: 1, dropped: 1, sent: 0 } });
    await expectRestored();
  });

  it("end by themselves after --seconds", async () => {
    const flow = ["--flow", "udp dst port 9999", "--seconds", "1"];
    const split = splitCard(...flow, "--do", "count");
    const forward = new RunningSplit(startHere(["loopback", "loopback", "--seconds", "1"], {}, "forward"));
    for (const each of [split, forward]) {
      expect((await each.ended).status).toBe(0);
      expect(await each.event("end")).toMatchObject({ reason: "seconds" });
    }
    await expectRestored();
  });

  it("reflect sends every frame back where it came from", async () => {
    const split = splitCard("--flow", "udp dst port 9999", "--do", "reflect");
    await split.event("split");
    await sendUdp(9999, "and back");
    while ((split.events.at(-1)?.["stats"] as { sent?: number } | undefined)?.sent !== 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect((await split.end()).status).toBe(0);
    await expectRestored();
  });

  it("forward sends the flow out of another card, and nothing else", async () => {
    const pair = await labUp({ name: `f${process.pid}`, clients: 2 });
    const [from, to] = pair.cards as [LabCard, LabCard];
    const arrived = async (): Promise<number> => {
      const { stdout } = await run("ip", [
        "-n",
        to.peer.netns,
        "-j",
        "-s",
        "link",
        "show",
        "dev",
        to.peer.ifname,
      ]);
      return (JSON.parse(stdout) as { stats64: { rx: { packets: number } } }[])[0]!.stats64.rx.packets;
    };
    const args = [
      from.ifname,
      "--netns",
      from.netns,
      "--flow",
      "udp dst port 9999",
      "--do",
      `forward=${to.ifname}`,
    ];
    const split = new RunningSplit(args);
    await split.event("split");
    const had = await arrived();
    const script = `const s = require("dgram").createSocket("udp4"); let left = 100;
      for (let n = 0; n < 100; n++) s.send("x".repeat(100), 9999, "${from.v4}", () => --left || s.close());`;
    await run(...inNetns(from.peer.netns, process.execPath, ["-e", script]));
    while ((split.events.at(-1)?.["stats"] as { sent?: number } | undefined)?.sent !== 100) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await vi.waitFor(async () => expect((await arrived()) - had).toBeGreaterThanOrEqual(100), 60_000);
    expect((await split.end()).status).toBe(0);
    await labDown(pair.name);
  });

  it("with --json stdout has nothing but objects: what a handler prints goes to stderr", async () => {
    const file = path.join(mkdtempSync(path.join(tmpdir(), "bifurcate-cli-")), "loud.ts");
    writeFileSync(file, 'console.log("loaded"); export const handle = () => console.log("handled");');
    const split = splitCard("--flow", "udp dst port 9998", "--do", `run=${file}`);
    await split.event("rates");
    const script = `require("dgram").createSocket("udp4").send("x", 9998, "${card.v4}", () => process.exit())`;
    await run(...inNetns(card.peer.netns, process.execPath, ["-e", script]));
    await vi.waitFor(() => expect(split.events.at(-1)).toMatchObject({ stats: { received: 1 } }), 60_000);
    // Once for each queue's worker.
    const all = ["", "handled", "loaded", "loaded", "loaded", "loaded"];
    await vi.waitFor(() => expect(split.told.split("\n").sort()).toEqual(all), 60_000);
    const { status, stdout, stderr } = await split.end();
    expect(status).toBe(0);
    expect(stdout).not.toMatch(/loaded|handled/);
    rmSync(path.dirname(file), { recursive: true });
    expect(stderr.split("\n").sort()).toEqual(all);
  });

  it("without --json a person reads the path, the rates and a summary", async () => {
    const args = [
      "split",
      card.ifname,
      "--netns",
      card.netns,
      "--flow",
      "udp dst port 9999",
      "--seconds",
      "4",
    ];
    const { status, stdout, stderr } = await cli(...args);
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^nic0: 'udp dst port 9999' by af_xdp, queues 0,1,2,3, copy, driver mode, steered by xdp, /,
    );
    expect(stdout).toContain("out of sight of: nftables and iptables;");
    expect(stdout).toMatch(/\nqueue 3 .*\nall +0 +0 +0 +0 +0 {2}none\n$/);
    expect(stderr).toMatch(/\d s {2}received 0\/s \(0 B\/s\)/);
  });
});

describe("several splits", () => {
  it("are listed, and one is ended by its name", async () => {
    const split = splitCard(...dns);
    const { id } = await split.event("split");
    const listed = JSON.parse((await cli("release", "--json")).stdout) as { splits: unknown[] };
    expect(listed.splits).toMatchObject([
      { id, device: "nic0", pid: split.pid, state: "live", flows: ["udp dst port 53"] },
    ]);
    expect((await cli("release", String(id))).status).toBe(0);
    expect((await split.ended).status).toBe(0);
    expect(await split.event("end")).toMatchObject({ reason: "SIGTERM" });
    expect((await cli("release")).stdout).toBe("there are no splits\n");
  });

  it("undo themselves unless confirmed", async () => {
    const split = splitCard(...dns, "--confirm", "1s");
    const { status, stderr } = await split.ended;
    expect(status).toBe(1);
    expect(stderr).toContain("E_NOT_CONFIRMED");
    await expectRestored();
  });

  it("stay when they are confirmed, by Enter or from elsewhere", async () => {
    const pair = await labUp({ name: `c${process.pid}`, clients: 2 });
    try {
      const look = (): Promise<Snapshot[]> =>
        Promise.all(pair.cards.map(({ netns, ifname }) => snapshot(netns, ifname)));
      const clean = await look();
      const splits = pair.cards.map(
        ({ netns, ifname }) => new RunningSplit([ifname, "--netns", netns, ...dns, "--confirm", "30s"]),
      );
      const [, { id }] = (await Promise.all(splits.map((split) => split.event("split")))) as [
        StreamEvent,
        StreamEvent,
      ];
      splits[0]!.type("");
      expect((await cli("confirm", String(id))).status).toBe(0);
      await new Promise((resolve) => setTimeout(resolve, 31_000));
      for (const split of splits) {
        expect((await split.end()).status).toBe(0);
        expect(await split.event("end")).toMatchObject({ reason: "SIGINT" });
      }
      expect((await look()).flatMap((now, at) => differences(clean[at]!, now))).toEqual([]);
    } finally {
      await labDown(pair.name);
    }
    await expectRestored();
  });
});
