// What happens to a running split from outside, by the built command line: card, handler, process, terminal. Each
// time the words and the status are right, the kernel keeps its traffic, and nothing is left behind.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { inNetns, ip, labDown, labList, labUp, run, spawnIn, type LabCard } from "@bifurcate/lab";
import { checkout, cli, cliPath, endAll, errorOf, RunningSplit } from "@bifurcate/lab/harness";
import { differences, snapshot, type Snapshot } from "@bifurcate/lab/snapshot";

const root = process.getuid?.() === 0;
const has = (program: string): boolean =>
  ["/usr/bin", "/usr/sbin", "/bin"].some((bin) => existsSync(`${bin}/${program}`));
const name = `s${process.pid}`;
const dns = ["--flow", "udp dst port 53", "--do", "run=examples/dns.ts"];
let folder = "";
let state = "";
let card: LabCard;
let before: Snapshot;

beforeAll(async () => {
  if (!root) return;
  folder = mkdtempSync(path.join(tmpdir(), "bifurcate-survive-"));
  state = path.join(folder, "state");
  process.env["BIFURCATE_STATE_DIR"] = state;
  await makeLab();
});

beforeEach(({ skip }) => {
  skip(!root, "needs root: it makes network namespaces");
});

afterEach(endAll);

afterAll(async () => {
  for (const lab of await labList()) await labDown(lab.name);
  if (folder !== "") rmSync(folder, { recursive: true, force: true });
});

async function makeLab(): Promise<void> {
  for (const lab of await labList()) await labDown(lab.name);
  card = (await labUp({ name })).cards[0]!;
  before = await snapshot(card.netns, card.ifname);
}

const onCard = (...args: string[]): string[] => [card.ifname, "--netns", card.netns, ...args];

const journals = (): string[] => readdirSync(state).filter((file) => file !== "lab");

async function expectRestored(): Promise<void> {
  expect(differences(before, await snapshot(card.netns, card.ifname))).toEqual([]);
  expect(journals()).toEqual([]);
}

function handlerFile(source: string): string {
  const file = path.join(mkdtempSync(path.join(folder, "handler-")), "handler.ts");
  writeFileSync(file, source);
  return file;
}

/** Whether the handler answers over IPv4: the kernel would refuse. */
async function answered(): Promise<boolean> {
  const script = `const s = require("dgram").createSocket("udp4");
    s.connect(53, "${card.v4}", () => s.send(Buffer.from("${query}", "hex")));
    s.on("error", () => process.exit(1)); s.on("message", () => process.exit(0));
    setTimeout(() => process.exit(2), 1000);`;
  return (await run(...inNetns(card.peer.netns, process.execPath, ["-e", script]))).status === 0;
}

/** A DNS question for www.bifurcate.test A (RFC 1035, section 4.1). */
const query = `000001000001000000000000${label("www")}${label("bifurcate")}${label("test")}0000010001`;

function label(text: string): string {
  return Buffer.from([text.length]).toString("hex") + Buffer.from(text).toString("hex");
}

/** One TCP connection through the kernel that sends line after line until end() counts the lines without echo. */
async function kernelTraffic(): Promise<{ end(): Promise<{ sent: number; lost: number }> }> {
  const options = { stdio: ["pipe", "pipe", "inherit"] as ("pipe" | "inherit")[] };
  const server = spawnIn(
    card.netns,
    process.execPath,
    [
      "-e",
      `require("net").createServer((s) => { s.on("error", () => {}); s.pipe(s); }).listen(9000, () => console.log("up"));`,
    ],
    options,
  );
  await new Promise((resolve) => server.stdout!.once("data", resolve));
  const client = spawnIn(
    card.peer.netns,
    process.execPath,
    [
      "-e",
      `let sent = 0, got = 0, over = false;
       const s = require("net").connect(9000, "${card.v4}", () => { console.log("up"); next(); });
       const next = () => { sent++; s.write("x"); };
       s.on("data", (d) => { got += d.length; if (over) done(); else setTimeout(next, 2); });
       const done = () => { console.log(JSON.stringify({ sent, lost: sent - got })); process.exit(); };
       process.stdin.on("end", () => { over = true; setTimeout(done, 60000); }).resume();`,
    ],
    options,
  );
  let said = "";
  client.stdout!.on("data", (text: Buffer) => (said += String(text)));
  await vi.waitFor(() => expect(said).toContain("up"), 60_000);
  return {
    async end() {
      client.stdin!.end();
      await new Promise((resolve) => client.once("close", resolve));
      server.kill("SIGKILL");
      return JSON.parse(said.replace("up\n", "")) as { sent: number; lost: number };
    },
  };
}

async function warned(split: RunningSplit, what: RegExp): Promise<void> {
  const texts = (): unknown => split.events.map((event) => event["text"] ?? "").join("\n");
  await vi.waitFor(() => expect(texts()).toMatch(what), 60_000);
}

describe("the card, while a split runs", () => {
  it("goes down and comes up: told, and it goes on", async () => {
    const split = new RunningSplit(onCard(...dns));
    await split.event("split");
    await ip([`link set dev ${card.ifname} down`], card.netns);
    await warned(split, /nic0 is down; the split goes on when it is up/);
    await ip([`link set dev ${card.ifname} up`], card.netns);
    await vi.waitFor(async () => expect(await answered()).toBe(true), 60_000);
    const { status, stderr } = await split.end();
    expect([status, stderr]).toEqual([0, ""]);
    await makeLab();
  });

  it("gets a larger MTU: split anew, and the kernel's traffic is not interrupted", async () => {
    const split = new RunningSplit(onCard(...dns));
    await split.event("split");
    const traffic = await kernelTraffic();
    await ip([`link set dev ${card.ifname} mtu 9000`], card.netns);
    await warned(split, /the MTU of nic0 is now 9000.*: split anew/);
    await vi.waitFor(async () => expect(await answered()).toBe(true), 60_000);
    expect(await traffic.end()).toMatchObject({ lost: 0 });
    expect((await split.end()).status).toBe(0);
    await ip([`link set dev ${card.ifname} mtu 1500`], card.netns);
    await expectRestored();
  });

  it("gets more queues by ethtool -L: split anew; fewer are refused to ethtool", async ({ skip }) => {
    skip(!has("ethtool"), "needs ethtool: apt-get install ethtool");
    const channels = async (queues: number): Promise<string> => {
      const args = (ifname: string): string[] => ["-L", ifname, "rx", `${queues}`, "tx", `${queues}`];
      const { stderr } = await run(...inNetns(card.netns, "ethtool", args(card.ifname)));
      await run(...inNetns(card.peer.netns, "ethtool", args(card.peer.ifname)));
      return stderr;
    };
    await channels(2);
    const split = new RunningSplit(onCard(...dns));
    expect(await split.event("split")).toMatchObject({ path: { queues: [0, 1] } });
    const traffic = await kernelTraffic();
    expect(await channels(4)).toBe("");
    await warned(split, /4 queues now: split anew, on queues 0, 1, 2, 3/);
    for (let i = 0; i < 8; i++) await vi.waitFor(async () => expect(await answered()).toBe(true), 60_000);
    expect(await channels(2)).toContain("AF_XDP sockets");
    await vi.waitFor(async () => expect(await answered()).toBe(true), 60_000);
    expect(await traffic.end()).toMatchObject({ lost: 0 });
    expect((await split.end()).status).toBe(0);
    const { stats } = (await split.event("end")) as unknown as { stats: { queues: unknown[] } };
    expect(stats.queues).toHaveLength(4);
    await expectRestored();
  });

  it("is moved to another namespace: the command ends, and the card runs no program there", async () => {
    const split = new RunningSplit(onCard(...dns));
    await split.event("split");
    await ip([`link set dev ${card.ifname} netns ${card.peer.netns}`], card.netns);
    const ended = await split.ended;
    expect([ended.status, errorOf(ended).code]).toEqual([1, "E_INTERFACE_GONE"]);
    expect(await ip([`-d link show dev ${card.ifname}`], card.peer.netns)).not.toContain("xdp");
    expect(journals()).toEqual([]);
    await makeLab();
  });
});

describe("a handler file", () => {
  it("that keeps every frame: E_HANDLER_LEAK, and the card is as it was", async () => {
    const file = handlerFile(
      "export function handle(batch) { while (batch.next()) if (batch.keep() < 0) throw new Error('no key'); }",
    );
    const split = new RunningSplit(onCard("--flow", "udp dst port 53", "--do", `run=${file}`));
    await split.event("split");
    const flood = `const s = require("dgram").createSocket("udp4"); let left = 60000;
      const go = () => { for (let i = 0; i < 200; i++) s.send("x", 53, "${card.v4}"); (left -= 200) > 0 ? setTimeout(go, 1) : process.exit(); };
      go();`;
    const floods = [1, 2, 3].map(() => run(...inNetns(card.peer.netns, process.execPath, ["-e", flood])));
    const ended = await split.ended;
    expect([ended.status, errorOf(ended).code]).toEqual([1, "E_HANDLER_LEAK"]);
    await Promise.all(floods);
    await expectRestored();
  });

  it("that never loads does not keep Ctrl-C from ending the split", async () => {
    const split = new RunningSplit(
      onCard(
        "--flow",
        "udp dst port 53",
        "--do",
        `run=${handlerFile("for (;;); export function handle() {}")}`,
      ),
    );
    await split.event("rates");
    const ended = await split.end("SIGINT");
    expect([ended.status, errorOf(ended).code]).toEqual([1, "E_HANDLER_HANGS"]);
    await expectRestored();
  });
});

describe("the process", () => {
  /** The guardian's pid, once there is one. */
  function guardian(): number | undefined {
    const [file] = journals().filter((each) => each.endsWith(".json"));
    if (file === undefined) return undefined;
    const { guardian } = JSON.parse(readFileSync(path.join(state, file), "utf8")) as {
      guardian: { pid: number } | null;
    };
    return guardian?.pid;
  }

  it("ends in good order by SIGINT and SIGTERM at any moment of its start", async () => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      for (const wait of [150, 250, 350, 450, 600]) {
        const split = new RunningSplit(onCard(...dns, "--confirm", "60s"));
        await new Promise((resolve) => setTimeout(resolve, wait));
        const { status, stderr } = await split.end(signal);
        // Before the command listens, the signal ends it as it ends any program.
        expect([0, null]).toContain(status);
        expect(stderr).toBe("");
        await vi.waitFor(() => expect(journals()).toEqual([]), 60_000);
        await expectRestored();
      }
    }
  });

  it("killed with -9 at any moment of its start leaves nothing behind", async () => {
    for (const wait of [200, 300, 400, 500, 600, 800]) {
      const split = new RunningSplit(onCard(...dns, "--confirm", "60s"));
      await new Promise((resolve) => setTimeout(resolve, wait));
      await split.end("SIGKILL");
      // The guardian does it; where there was none yet, the next command.
      await vi.waitFor(async () => {
        if (guardian() === undefined) await cli("release", "--stale");
        expect(journals()).toEqual([]);
      }, 60_000);
      await expectRestored();
    }
  });

  it("killed with -9 at any moment of its end leaves nothing behind", async () => {
    for (const wait of [0, 5, 20, 50, 100]) {
      const split = new RunningSplit(onCard(...dns, "--confirm", "60s"));
      await split.event("split");
      process.kill(split.pid, "SIGINT");
      await new Promise((resolve) => setTimeout(resolve, wait));
      await split.end("SIGKILL");
      await vi.waitFor(() => expect(journals()).toEqual([]), 60_000);
      await expectRestored();
    }
  });

  it("killed together with its guardian leaves what release --stale puts back", async () => {
    const split = new RunningSplit(onCard(...dns, "--confirm", "60s"));
    await split.event("split");
    // So that it starts no other guardian.
    process.kill(split.pid, "SIGSTOP");
    process.kill(guardian()!, "SIGKILL");
    await split.end("SIGKILL");
    // The flow is with the kernel already; only the journal is left.
    expect(await answered()).toBe(false);
    const { status } = await cli("release", "--stale");
    expect(status).toBe(0);
    await expectRestored();
  });

  it("has a new guardian when its guardian is killed, and no guardian after its end", async () => {
    const split = new RunningSplit(onCard(...dns, "--confirm", "60s"));
    await split.event("split");
    const first = guardian()!;
    process.kill(first, "SIGKILL");
    await vi.waitFor(() => {
      const second = guardian();
      expect(second).toBeDefined();
      expect(second).not.toBe(first);
    }, 60_000);
    const second = guardian()!;
    expect((await split.end("SIGKILL")).status).toBeNull();
    await vi.waitFor(() => expect(journals()).toEqual([]), 60_000);
    await vi.waitFor(() => expect(existsSync(`/proc/${second}`)).toBe(false), 60_000);
    await expectRestored();
  });

  it("started twice at the same moment: one has the card, the other names it", async () => {
    const both = [new RunningSplit(onCard(...dns)), new RunningSplit(onCard(...dns))];
    const started = await Promise.all(both.map((split) => split.event("split").catch(() => null)));
    expect(started.filter((each) => each !== null)).toHaveLength(1);
    const [loser, winner] = started[0] === null ? both : [both[1], both[0]];
    expect(errorOf(await loser!.ended)).toMatchObject({
      code: "E_FLOW_TAKEN",
      why: expect.stringContaining(`${winner!.pid}`),
    });
    expect((await winner!.end()).status).toBe(0);
    await expectRestored();
  });

  it("whose terminal is closed puts everything back, and does not crash", async ({ skip }) => {
    skip(!has("script"), "needs script: apt-get install bsdutils");
    const errors = path.join(folder, "errors");
    const words = [process.execPath, cliPath, "split", ...onCard(...dns.map((word) => `'${word}'`))];
    const terminal = spawn("script", ["-qfec", `exec ${words.join(" ")} 2>${errors}`, "/dev/null"], {
      cwd: checkout,
      stdio: ["ignore", "pipe", "inherit"],
    });
    let said = "";
    terminal.stdout.on("data", (text: Buffer) => (said += String(text)));
    await vi.waitFor(() => expect(said).toContain("Ctrl-C ends it"), 60_000);
    const { splits } = JSON.parse((await cli("release", "--json")).stdout) as { splits: { pid: number }[] };
    terminal.kill("SIGKILL");
    await vi.waitFor(() => expect(existsSync(`/proc/${splits[0]!.pid}`)).toBe(false), 60_000);
    expect(readFileSync(errors, "utf8")).not.toMatch(/Assertion|E_[A-Z]/);
    await expectRestored();
  });
});
