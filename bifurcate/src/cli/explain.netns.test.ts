// Explaining packets on a real card: the kernel's decisions, rings of a running split, and real packets that vanish.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { nativeKernel, type Explanation, type LiveVerdict } from "@bifurcate/control";
import { ip, labDown, labList, labUp, run, spawnIn, type LabCard } from "@bifurcate/lab";
import { cli, cliPath, endAll, errorOf, RunningSplit } from "@bifurcate/lab/harness";
import { buildExample } from "../testing/rust-example.js";

const root = process.getuid?.() === 0;
const name = `x${process.pid}`;
let folder = "";
let card: LabCard;
let packet = "";
const senders = new Set<ChildProcess>();

beforeAll(async () => {
  if (!root) return;
  folder = mkdtempSync(path.join(tmpdir(), "bifurcate-explain-"));
  process.env["BIFURCATE_STATE_DIR"] = path.join(folder, "state");
  card = (await labUp({ name })).cards[0]!;
  packet = `udp ${card.peer.v4}:4242 > ${card.v4}:53`;
});

beforeEach(({ skip }) => skip(!root, "needs root: it makes network namespaces"));

afterEach(async () => {
  const gone = [...senders].map((sender) => new Promise((resolve) => sender.once("exit", resolve)));
  for (const sender of senders) sender.kill("SIGKILL");
  await Promise.all(gone);
  senders.clear();
  await endAll();
});

afterAll(async () => {
  for (const lab of await labList()) await labDown(lab.name);
  if (folder !== "") rmSync(folder, { recursive: true, force: true });
});

const onCard = (...args: string[]): string[] => [card.ifname, "--netns", card.netns, ...args];

/** Sends datagrams to port 53 all the time, from so many ports in turn; resolves when the first have been sent. */
function send(ports: number): Promise<void> {
  const script = `
    const sockets = Array.from({ length: ${ports} }, () => require("node:dgram").createSocket("udp4"));
    let said = false;
    setInterval(() => {
      for (let n = 0; n < 64; n++) sockets[n % ${ports}].send("x", 53, "${card.v4}", () => {
        if (!said) console.log("sent");
        said = true;
      });
    }, 10);`;
  const child = spawn("ip", ["netns", "exec", card.peer.netns, process.execPath, "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  senders.add(child);
  return new Promise((resolve) => child.stdout!.once("data", () => resolve()));
}

async function split(...more: string[]): Promise<RunningSplit> {
  const running = new RunningSplit(onCard("--flow", "udp dst port 53", ...more));
  await running.event("rates");
  return running;
}

async function explain(what = packet): Promise<Explanation> {
  const ended = await cli("explain", card.ifname, what, "--netns", card.netns, "--json");
  expect(ended.stderr).toBe("");
  return JSON.parse(ended.stdout) as Explanation;
}

/** Counts for a second; the error on stderr has to name what the document names. */
async function live(): Promise<LiveVerdict> {
  const ended = await cli(
    ...["explain", card.ifname, packet, "--netns", card.netns, "--live", "--seconds", "1", "--json"],
  );
  const verdict = JSON.parse(ended.stdout) as LiveVerdict;
  expect(ended.status).toBe(verdict.vanish === null ? 0 : 1);
  if (verdict.vanish !== null) {
    expect(errorOf(ended)).toMatchObject({
      code: "E_PACKETS_VANISH",
      data: { stage: verdict.vanish.stage, complaint: verdict.vanish.complaint.name },
    });
  }
  return verdict;
}
/** Counts until it is so: the machine may let a sender, or who is sent to, sleep for all the time that is counted. */
async function until(check: (verdict: LiveVerdict) => void): Promise<void> {
  await vi.waitFor(async () => check(await live()), { timeout: 100_000, interval: 100 });
}
const vanishes = (stage: string, name: string): Promise<void> =>
  until(({ vanish }) => expect(vanish).toMatchObject({ stage, complaint: { name } }));
const names = (explanation: Explanation): string[] => explanation.complaints.map((each) => each.name);
const says = (explanation: Explanation, stage: string): string =>
  explanation.stages.find((each) => each.name === stage)!.says;
const counted = (verdict: LiveVerdict, stage: string): number =>
  verdict.counted.find((each) => each.name === stage)!.packets ?? 0;

describe("a packet's way, worked out", () => {
  it("on a card that nobody splits: to the kernel, which has no listener", async () => {
    const way = await explain();
    expect([way.ends, names(way)]).toEqual(["kernel", ["no-listener"]]);
    expect(says(way, "RSS")).toMatch(/^veth has no RSS/);
    expect(says(way, "card filter")).toBe("veth has no ntuple rules");
  });

  it("of an address that is not this machine's: the kernel's own routing says no", async () => {
    const way = await explain(`udp ${card.peer.v4}:1 > 198.51.100.7:53`);
    expect(names(way)).toEqual(["no-route"]);
  });

  it("by IPv6 too, and as the first packet of a capture file", async () => {
    expect(says(await explain(`icmp6 ${card.peer.v6} > ${card.v6}`), "kernel")).toContain(
      "an address of this machine",
    );
    // An ARP request as tcpdump -w writes it: a header, a record, the frame.
    const frame = Buffer.concat([
      Buffer.from("ffffffffffff02bf00000002080600010800060400010", "hex"),
      Buffer.alloc(38),
    ]);
    const header = Buffer.alloc(40);
    [0xa1b2c3d4, 0x00040002, 0, 0, 65535, 1, 0, 0, frame.length, frame.length].forEach((word, n) =>
      header.writeUInt32LE(word, 4 * n),
    );
    const file = path.join(folder, "arp.pcap");
    writeFileSync(file, Buffer.concat([header, frame]));
    expect((await explain(file)).packet).toMatch(/^arp /);
  });

  it("of a split: its program run on the frame, its sockets and rings seen in another process", async () => {
    const running = await split("--do", "count");
    const way = await explain();
    expect([way.ends, names(way)]).toEqual(["user", []]);
    expect(says(way, "XDP")).toMatch(/of the split nic0-\w+, run on this frame: redirects it/);
    expect(says(way, "socket")).toContain(
      `queue 3: node (pid ${running.pid}), copy, 2048 frames to fill, 0 unread`,
    );
    const other = await explain(packet.replace(":53", ":54"));
    expect([other.ends, names(other)]).toEqual(["kernel", ["flow-differs", "no-listener"]]);
    // The looks have left nothing behind: the queues are free again.
    await running.end();
    const again = await split("--do", "count");
    await again.end();
  });

  it("of a split of too few queues: on which ones the program would pass the packet on", async () => {
    const running = await split("--do", "count", "--queues", "1");
    const way = await explain();
    expect(way.ends).toBe("unsure");
    expect(names(way)).toEqual(expect.arrayContaining(["rss-spreads", "wrong-queue"]));
    await running.end();
  });
});

describe("real packets, counted", () => {
  it("get to the handler of a split, and none vanish", async () => {
    const running = await split("--do", "count");
    await send(8);
    await until((verdict) => {
      expect(verdict.vanish).toBeNull();
      for (const stage of ["link", "RSS", "XDP", "socket", "handler"]) {
        expect(counted(verdict, stage), stage).toBeGreaterThan(64);
      }
    });
    await running.end();
  });

  it("nothing arrives", async () => {
    // IPv6 solicits routers and reports groups by itself. What was sent before is asked about once more, by ARP.
    const silent = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";
    await run("ip", ["netns", "exec", card.peer.netns, "sh", "-c", silent]);
    await vanishes("link", "nothing-arrives");
  });

  it("a handler that is stuck: the fill ring runs empty", async () => {
    const file = path.join(folder, "stuck.ts");
    writeFileSync(
      file,
      `const never = new Int32Array(new SharedArrayBuffer(4));
       export function handle(batch) { if (batch.next()) Atomics.wait(never, 0, 0); }`,
    );
    await split("--do", `run=${file}`);
    await send(1);
    // Until what the ring holds is used up; nothing arrives while the sender sleeps.
    const before = new Set<string>();
    await until(({ vanish }) => {
      if (vanish?.complaint.name !== "fill-ring-empty") before.add(vanish?.complaint.name ?? "none");
      expect(vanish).toMatchObject({ stage: "socket", complaint: { name: "fill-ring-empty" } });
      // A ring of 2,048, less what is in the batch that the handler is stuck in when nothing was refilled since.
      const says = /its owner read 0 meanwhile, and (\d+) wait unread/.exec(vanish!.complaint.says);
      expect(Number(says?.[1])).toBeGreaterThanOrEqual(2048 - 64);
      expect(Number(says?.[1])).toBeLessThanOrEqual(2048);
    });
    expect(["handler-stalled", "nothing-arrives"]).toEqual(expect.arrayContaining([...before]));
    expect(names(await explain())).toContain("fill-ring-empty");
  });

  it("a split on one queue, and a flow from many ports: RSS spreads it", async () => {
    const running = await split("--do", "count", "--queues", "1");
    await send(64);
    await vanishes("RSS", "rss-spreads");
    await running.end();
  });

  it("a split on another queue than all packets arrive on", async () => {
    await run("ip", ["netns", "exec", card.peer.netns, "ethtool", "-L", card.peer.ifname, "tx", "1"]);
    const running = await split("--do", "count", "--queues", "2");
    await send(8);
    await until(({ vanish }) => {
      expect(vanish).toMatchObject({ stage: "RSS", complaint: { name: "wrong-queue" } });
      expect(vanish!.complaint.says).toMatch(/arrived on queue 0, and the sockets are on queue 2/);
    });
    await running.end();
    await run("ip", ["netns", "exec", card.peer.netns, "ethtool", "-L", card.peer.ifname, "tx", "4"]);
  });

  it("another's program drops them", async () => {
    const kernel = nativeKernel();
    const netns = kernel.openNetns(card.netns);
    // r0 = XDP_DROP; exit
    const instructions = Uint8Array.of(0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0);
    const program = kernel.loadProgram({ type: "xdp", name: "stranger", instructions, maps: [] });
    const { index } = netns.links().find((link) => link.name === card.ifname)!;
    const attachment = netns.attachXdp(program, index, "driver");
    try {
      expect(names(await explain())).toContain("foreign-program");
      await send(1);
      await until(({ vanish }) => {
        expect(vanish).toMatchObject({ stage: "XDP", complaint: { name: "foreign-program" } });
        expect(vanish!.complaint.says).toContain("stranger");
      });
    } finally {
      attachment.close();
      program.close();
      netns.close();
    }
  });

  it("a link that is down", async () => {
    await ip([`link set dev ${card.peer.ifname} down`], card.peer.netns);
    await vanishes("link", "link-down");
    await ip([`link set dev ${card.peer.ifname} up`], card.peer.netns);
  });
});

describe("a ring that somebody else has his hands in", () => {
  let meddle = "";
  beforeAll(() => {
    if (root) meddle = buildExample("bifurcate-linux", "meddle");
  }, 300_000);

  /** Runs `look` while another process is at a ring of one of a split's sockets. */
  async function meddled(
    ring: "fill" | "tx",
    look: (running: RunningSplit, other: number) => Promise<void>,
  ): Promise<void> {
    const running = await split("--do", "count");
    // Its own thread would call the kernel for the frame that it finds in the ring.
    if (ring === "tx") process.kill(running.pid, "SIGSTOP");
    const other = spawn(meddle, [String(running.pid), ring], { stdio: ["pipe", "pipe", "inherit"] });
    const closed = new Promise((resolve) => other.once("close", resolve));
    try {
      await new Promise<void>((resolve, reject) => {
        other.stdout.once("data", () => resolve());
        other.once("exit", (status) => reject(new Error(`it ended with ${status}`)));
      });
      await look(running, other.pid!);
    } finally {
      other.stdin.end();
      await closed;
      process.kill(running.pid, "SIGCONT");
      await running.end();
    }
  }

  it("a fill ring that two processes have: both are named, while both have it", async () => {
    await meddled("fill", async (running, other) => {
      await send(1);
      const pids = [running.pid, other].sort((one, two) => one - two).join(", ");
      await until(({ explanation }) => {
        const found = explanation.complaints.find((each) => each.name === "umem-shared-wrongly");
        expect(found?.says).toMatch(/^the fill ring of queue \d is mapped by the processes /);
        expect(found?.says).toContain(pids);
      });
    });
    const running = await split("--do", "count");
    expect(names(await explain())).not.toContain("umem-shared-wrongly");
    await running.end();
  });

  it("a frame to send, and nobody calls the kernel: it waits", async () => {
    await meddled("tx", async () => {
      expect(names(await explain())).toContain("need-wakeup-ignored");
      // Of another flow, so that nothing else is amiss at this socket.
      senders.add(spawnIn(card.peer.netns, "ping", ["-q", "-i", "0.2", card.v4], { stdio: "ignore" }));
      await until(({ vanish }) => {
        expect(vanish).toMatchObject({ stage: "socket", complaint: { name: "need-wakeup-ignored" } });
        expect(vanish!.complaint.says).toMatch(/^1 frames wait in the transmit ring/);
      });
    });
  });
});

describe("bad input", () => {
  /** Runs a count and does something to the card when it has begun. */
  async function meanwhile(happen: () => Promise<unknown>): Promise<{ code: string; why: string }> {
    const args = ["explain", card.ifname, packet, "--netns", card.netns, "--live", "--seconds", "12"];
    const child = spawn(process.execPath, [cliPath, ...args], { stdio: ["ignore", "ignore", "pipe"] });
    let text = "";
    const begun = new Promise<void>((resolve) =>
      child.stderr.on("data", (chunk) => {
        text += String(chunk);
        if (text.includes("counting on")) resolve();
      }),
    );
    const ended = new Promise((resolve) => child.once("close", resolve));
    await begun;
    await happen();
    expect(await ended).toBe(1);
    return { code: /code: (\w+)/.exec(text)?.[1] ?? "", why: text };
  }

  it("a card that changes under --live", async () => {
    const { code, why } = await meanwhile(() => ip([`link set dev ${card.ifname} mtu 1400`], card.netns));
    expect(code).toBe("E_CHANGED_UNDERNEATH");
    expect(why).toContain("MTU: 1500, now 1400");
    await ip([`link set dev ${card.ifname} mtu 1500`], card.netns);
  });

  it("a report into a file that cannot be written, and into one that can", async () => {
    const nowhere = path.join(folder, "nowhere", "report");
    const refused = await cli(
      "explain",
      ...[card.ifname, packet],
      "--netns",
      card.netns,
      "--json",
      "--output",
      nowhere,
    );
    expect([refused.status, errorOf(refused).code]).toEqual([1, "E_OUTPUT"]);
    const file = path.join(folder, "report");
    await cli("explain", card.ifname, packet, "--netns", card.netns, "--output", file);
    expect(readFileSync(file, "utf8")).toContain("it ends with the kernel");
  });

  it("two words that are an expression: the error says to quote them", async () => {
    const ended = await cli(
      "explain",
      "port",
      "udp 192.0.2.1:1 > 192.0.2.2:2",
      "--netns",
      card.netns,
      "--json",
    );
    expect(errorOf(ended)).toMatchObject({
      code: "E_NO_SUCH_INTERFACE",
      next: expect.stringContaining("into quotes"),
    });
  });

  it("a card that is deleted under --live", async () => {
    const { code } = await meanwhile(() => ip([`link del dev ${card.ifname}`], card.netns));
    expect(code).toBe("E_INTERFACE_GONE");
  });
});
