// What goes wrong on a real machine: each with its code, a message that says what to do, and the card as it was.
import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { ip, labDown, labList, labUp, run, type LabCard } from "@bifurcate/lab";
import { checkout, cli, cliPath, endAll, errorOf, RunningSplit } from "@bifurcate/lab/harness";
import { differences, snapshot, type Snapshot } from "@bifurcate/lab/snapshot";

const root = process.getuid?.() === 0;
const name = `b${process.pid}`;
let folder = "";
let state = "";
let card: LabCard;
let before: Snapshot;

beforeAll(async () => {
  if (!root) return;
  folder = mkdtempSync(path.join(tmpdir(), "bifurcate-bad-"));
  state = path.join(folder, "state");
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
  if (folder !== "") rmSync(folder, { recursive: true, force: true });
});

const onCard = (...args: string[]): string[] => [card.ifname, "--netns", card.netns, ...args];
const flow = ["--flow", "udp dst port 53"];

async function expectRestored(): Promise<void> {
  expect(differences(before, await snapshot(card.netns, card.ifname))).toEqual([]);
  expect(readdirSync(state).filter((file) => file !== "lab")).toEqual([]);
}

function handlerFile(source: string): string {
  const file = path.join(mkdtempSync(path.join(folder, "handler-")), "handler.ts");
  writeFileSync(file, source);
  return file;
}

function sendUdp(): Promise<unknown> {
  const script = `require("dgram").createSocket("udp4").send("x", 53, "${card.v4}", () => process.exit())`;
  return run("ip", ["netns", "exec", card.peer.netns, process.execPath, "-e", script]);
}

describe("asked for what is not there", () => {
  const cases: [string, () => string[], string, number, RegExp][] = [
    [
      "an unknown interface",
      () => ["nix9", "--netns", card.netns, ...flow],
      "E_NO_SUCH_INTERFACE",
      1,
      /lo, nic0/,
    ],
    ["an unknown namespace", () => ["nic0", "--netns", "bfnone", ...flow], "E_NO_SUCH_NETNS", 1, /no such/i],
    ["a queue that the card has not", () => onCard(...flow, "--queues", "4"), "E_NO_SUCH_QUEUE", 1, /0 to 3/],
    ["a syntax error in the flow", () => onCard("--flow", "udp prt 53"), "E_FLOW_SYNTAX", 2, /at character/],
    [
      "zero-copy on a card without it",
      () => onCard(...flow, "--zero-copy", "require"),
      "E_NO_ZERO_COPY",
      77,
      /shared/,
    ],
    ["the loopback interface", () => ["lo", "--netns", card.netns, ...flow], "E_NOT_ETHERNET", 1, /loopback/],
    [
      "a card to forward to that is not there, which it says before it splits",
      () => onCard(...flow, "--do", "forward=nix9"),
      "E_NO_SUCH_INTERFACE",
      1,
      /has lo, nic0$/,
    ],
    [
      "a handler file that is not there",
      () => onCard(...flow, "--do", "run=nix.ts"),
      "E_HANDLER_FILE",
      2,
      /nix\.ts|no such/,
    ],
  ];
  for (const [what, args, code, status, why] of cases) {
    it(`${what}: ${code}`, async () => {
      const ended = await cli("split", ...args(), "--json", "--seconds", "5");
      const error = errorOf(ended);
      expect(error.code).toBe(code);
      expect(`${error.what} ${error.why}`).toMatch(why);
      expect(error.next).toMatch(/\S/);
      expect(ended.status).toBe(status);
      await expectRestored();
    });
  }

  it("an interface that is down", async () => {
    await ip([`link set dev ${card.ifname} down`], card.netns);
    try {
      expect(errorOf(await cli("split", ...onCard(...flow, "--json"))).code).toBe("E_INTERFACE_DOWN");
    } finally {
      await labDown(name);
      card = (await labUp({ name })).cards[0]!;
      before = await snapshot(card.netns, card.ifname);
    }
  });

  it("a split of no such name", async () => {
    const ended = await cli("release", "nic0-123456", "--json");
    expect([ended.status, errorOf(ended).code]).toEqual([1, "E_NO_SUCH_SPLIT"]);
  });
});

describe("without rights", () => {
  const unprivileged = ["--reuid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];

  /** As a user that may do nothing, inside the card's namespace: opening it would need rights of its own. */
  function asNobody(...args: string[]): { status: number | null; stderr: string; stdout: string } {
    const inside = [
      "netns",
      "exec",
      card.netns,
      "setpriv",
      ...unprivileged,
      process.execPath,
      cliPath,
      ...args,
    ];
    return spawnSync("ip", inside, {
      encoding: "utf8",
      cwd: "/",
      env: { ...process.env, BIFURCATE_STATE_DIR: "/nonexistent" },
    });
  }

  beforeEach(({ skip }) => {
    skip(!existsSync("/usr/bin/setpriv"), "needs setpriv: apt-get install util-linux");
  });

  it("split names the capabilities that are missing", () => {
    const { status, stderr } = asNobody("split", card.ifname, ...flow, "--json");
    const { error } = JSON.parse(stderr) as { error: { code: string; why: string; next: string } };
    expect([status, error.code]).toEqual([1, "E_NOT_PRIVILEGED"]);
    expect(error.why).toContain("CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF");
    expect(error.next).toContain("root");
  });

  it("a pool larger than the process may lock says so, and what mends it", async () => {
    const inside = ["netns", "exec", card.netns, "prlimit", "--memlock=65536", "setpriv"];
    const without = ["--inh-caps=-ipc_lock", "--bounding-set=-ipc_lock", process.execPath, cliPath];
    const command = ["split", card.ifname, ...flow, "--seconds", "5", "--json"];
    const ended = spawnSync("ip", [...inside, ...without, ...command], { encoding: "utf8" });
    const { error } = JSON.parse(ended.stderr) as { error: { code: string; next: string } };
    expect([ended.status, error.code]).toEqual([1, "E_NO_MEMORY"]);
    expect(error.next).toContain("CAP_IPC_LOCK");
    await expectRestored();
  });

  it("devices and --dry-run work all the same", () => {
    const devices = JSON.parse(asNobody("devices", "--json").stdout) as { devices: { name: string }[] };
    expect(devices.devices.map((device) => device.name)).toEqual([card.ifname]);
    expect(asNobody("split", card.ifname, ...flow, "--dry-run").stdout).toContain(
      "shared queues (queues 0, 1, 2, 3), AF_XDP",
    );
  });
});

describe("somebody else was there first", () => {
  it("a foreign XDP program is named, and never displaced", async () => {
    // mov r0, XDP_PASS; exit
    const script = `import { nativeKernel } from ${JSON.stringify(path.join(checkout, "control/dist/index.js"))};
      const kernel = nativeKernel();
      const netns = kernel.openNetns("${card.netns}");
      const instructions = Uint8Array.from([0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]);
      const program = kernel.loadProgram({ type: "xdp", name: "somebody", instructions, maps: [] });
      const { index } = netns.links().find((link) => link.name === "${card.ifname}");
      globalThis.kept = netns.attachXdp(program, index, "driver");
      console.log(program.id);
      setInterval(() => undefined, 1000);`;
    const owner = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      const id = await new Promise<string>((resolve) =>
        owner.stdout.once("data", (text: Buffer) => resolve(`${text}`.trim())),
      );
      const ended = await cli("split", ...onCard(...flow, "--backend", "af_xdp", "--json"));
      const error = errorOf(ended);
      expect([ended.status, error.code]).toEqual([1, "E_FOREIGN_XDP"]);
      expect(error.why).toContain(`pid ${owner.pid}`);
      expect(error.why).toContain(id);
      const link = await ip([`-d link show dev ${card.ifname}`], card.netns);
      expect(link).toContain(`prog/xdp id ${id}`);
    } finally {
      owner.kill("SIGKILL");
      await new Promise((resolve) => owner.once("exit", resolve));
    }
    await vi.waitFor(expectRestored, 60_000);
  });

  it("a flow that another split has", async () => {
    const first = new RunningSplit(onCard(...flow));
    const { id } = await first.event("split");
    const ended = await cli("split", ...onCard("--flow", "udp", "--json"));
    expect(errorOf(ended)).toMatchObject({ code: "E_FLOW_TAKEN", why: expect.stringContaining(String(id)) });
    expect((await first.end()).status).toBe(0);
    await expectRestored();
  });
});

describe("a handler", () => {
  const cases: [string, string, string, RegExp][] = [
    [
      "that throws",
      "export function handle() { throw new Error('my fault'); }",
      "E_HANDLER_THREW",
      /my fault/,
    ],
    [
      "that returns a Promise",
      "export function handle() { return Promise.resolve(); }",
      "E_HANDLER_PROMISE",
      /Promise/,
    ],
    ["that is async", "export async function handle() {}", "E_HANDLER_PROMISE", /async/],
  ];
  for (const [what, source, code, why] of cases) {
    it(`${what}: ${code}, and the card is as it was`, async () => {
      const split = new RunningSplit(onCard(...flow, "--do", `run=${handlerFile(source)}`));
      await split.event("split").catch(() => undefined);
      // Frames may come before the handler is loaded; they wait in the ring.
      await sendUdp();
      const ended = await split.ended;
      const error = errorOf(ended);
      expect([ended.status, error.code]).toEqual([1, code]);
      expect(error.why).toMatch(why);
      await expectRestored();
    });
  }

  it("that throws is told with its line, of the file as it was written", async () => {
    const file = handlerFile(
      'interface Gone {\n  x: number;\n}\nexport function handle() {\n  throw new Error("x");\n}\n',
    );
    let over = false;
    const sending = (async () => {
      while (!over) await sendUdp();
    })();
    const ended = await cli("split", ...onCard(...flow, "--do", `run=${file}`, "--seconds", "100"));
    over = true;
    await sending;
    expect(ended.stderr).toContain(`  at handle (${file}:5:9)\n`);
  });

  it("with a syntax error is told with its place", async () => {
    const file = handlerFile("export function handle( {\n");
    const ended = await cli("split", ...onCard(...flow, "--do", `run=${file}`, "--json"));
    expect(errorOf(ended)).toMatchObject({
      code: "E_HANDLER_FILE",
      why: expect.stringMatching(/handler\.ts:\d+:\d+/),
    });
    await expectRestored();
  });

  it("without an export named handle", async () => {
    const file = handlerFile("export const handler = 1;\n");
    const ended = await cli("split", ...onCard(...flow, "--do", `run=${file}`, "--json"));
    expect(errorOf(ended)).toMatchObject({ code: "E_HANDLER_FILE", why: expect.stringContaining("handle") });
    await expectRestored();
  });

  it("that hangs does not keep Ctrl-C from ending the split", async () => {
    const called = path.join(folder, "called");
    const file = handlerFile(
      `import { writeFileSync } from "node:fs";
       export function handle() { writeFileSync(${JSON.stringify(called)}, ""); for (;;); }`,
    );
    const split = new RunningSplit(onCard(...flow, "--do", `run=${file}`));
    await split.event("split");
    await sendUdp();
    await vi.waitFor(() => expect(existsSync(called)).toBe(true), 60_000);
    const ended = await split.end("SIGINT");
    expect(errorOf(ended).code).toBe("E_HANDLER_HANGS");
    expect(ended.status).toBe(1);
    await expectRestored();
  });
});

describe("while it runs", () => {
  it("the interface is deleted: told, and the command ends", async () => {
    const split = new RunningSplit(onCard(...flow));
    await split.event("split");
    await ip([`link del dev ${card.ifname}`], card.netns);
    const ended = await split.ended;
    expect([ended.status, errorOf(ended).code]).toEqual([1, "E_INTERFACE_GONE"]);
    expect(readdirSync(state).filter((file) => file !== "lab")).toEqual([]);
    await labDown(name);
    card = (await labUp({ name })).cards[0]!;
    before = await snapshot(card.netns, card.ifname);
  });

  it("the interface is renamed: it goes on", async () => {
    const split = new RunningSplit(onCard(...flow, "--do", "count"));
    await split.event("split");
    await ip([`link set dev ${card.ifname} name other0`], card.netns);
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await ip([`link set dev other0 name ${card.ifname}`], card.netns);
    expect((await split.end()).status).toBe(0);
    await expectRestored();
  });
});

describe("a full disk under the journal", () => {
  /** Runs `during` with a state folder on a disk of its own, of so many KiB. */
  async function onDisk(kib: number, during: (state: string) => Promise<void>): Promise<void> {
    const small = mkdtempSync(path.join(folder, "small-"));
    expect((await run("mount", ["-t", "tmpfs", "-o", `size=${kib}k`, "tmpfs", small])).status).toBe(0);
    try {
      await during(small);
    } finally {
      await endAll();
      await run("umount", [small]);
    }
  }

  it("at the start: nothing is changed", () =>
    onDisk(4, async (small) => {
      writeFileSync(path.join(small, "full"), Buffer.alloc(4096));
      const split = new RunningSplit(onCard(...flow, "--confirm", "30s"), { BIFURCATE_STATE_DIR: small });
      const ended = await split.ended;
      expect([ended.status, errorOf(ended).code]).toEqual([1, "E_JOURNAL"]);
      await expectRestored();
    }));

  it("when the card has to be split anew, with nothing new to put back: it goes on", () =>
    onDisk(256, async (small) => {
      const split = new RunningSplit(onCard(...flow), { BIFURCATE_STATE_DIR: small });
      await split.event("split");
      const filler = openSync(path.join(small, "full"), "w");
      expect(() => {
        for (;;) writeSync(filler, Buffer.alloc(4096));
      }).toThrow(/ENOSPC/);
      closeSync(filler);
      await ip([`link set dev ${card.ifname} mtu 9000`], card.netns);
      const anew = expect.objectContaining({
        text: expect.stringContaining("split anew") as string,
      }) as unknown;
      await vi.waitFor(() => expect(split.events).toContainEqual(anew), 60_000);
      const ended = await split.end();
      expect([ended.status, ended.stderr]).toEqual([0, ""]);
      await ip([`link set dev ${card.ifname} mtu 1500`], card.netns);
      await expectRestored();
    }));
});
