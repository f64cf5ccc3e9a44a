// The lab on the real kernel: it comes up whole, goes away whole, and what a crash leaves is found.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { cliPath } from "./harness.js";
import { labDown, labFind, labList, labUp } from "./network.js";
import { differences, snapshot } from "./snapshot.js";
import { inNetns, run } from "./tools.js";

const root = process.getuid?.() === 0;
const name = `t${process.pid}`;
const built = fileURLToPath(new URL("../dist/index.js", import.meta.url));
let state = "";

beforeAll(() => {
  state = mkdtempSync(path.join(tmpdir(), "bifurcate-lab-"));
  process.env["BIFURCATE_STATE_DIR"] = state;
});

beforeEach(({ skip }) => {
  skip(!root, "needs root: it makes network namespaces");
});

afterAll(async () => {
  for (const lab of await labList()) await labDown(lab.name);
  rmSync(state, { recursive: true, force: true });
});

const namespaces = (): string[] =>
  [`bf${name}-host`, `bf${name}-peer`].filter((n) => existsSync(`/run/netns/${n}`));

describe("a lab", () => {
  it("joins a host's multi-queue card to a client, reachable at once by IPv4 and IPv6", async () => {
    const lab = await labUp({ name, queues: 3 });
    const [card] = lab.cards;
    const link = await run("ip", ["-n", card!.netns, "-d", "link", "show", "dev", "nic0"]);
    expect(link.stdout).toContain("numrxqueues 3");
    for (const address of [card!.v4, card!.v6]) {
      const connect = `require("net").connect(9, "${address}").on("error", (e) => console.log(e.code))`;
      const { stdout } = await run(...inNetns(card!.peer.netns, process.execPath, ["-e", connect]));
      expect(stdout.trim()).toBe("ECONNREFUSED");
    }
    expect(await labFind(name)).toEqual(lab);
  });

  it("of the same name cannot be made twice, and the first one stays", async () => {
    await expect(labUp({ name })).rejects.toMatchObject({
      code: "E_LAB",
      next: expect.stringContaining("lab down"),
    });
    expect(namespaces()).toHaveLength(2);
  });

  it("goes away whole", async () => {
    expect((await labDown(name)).removed).toEqual([`bf${name}-host`, `bf${name}-peer`]);
    expect(namespaces()).toEqual([]);
    expect(await labList()).toEqual([]);
    await expect(labDown(name)).rejects.toMatchObject({ code: "E_LAB" });
  });

  it("with two clients has two cards and three namespaces", async () => {
    const lab = await labUp({ name, clients: 2 });
    expect(lab.cards.map((card) => [card.netns, card.ifname, card.peer.netns])).toEqual([
      [`bf${name}-host`, "nic0", `bf${name}-peer`],
      [`bf${name}-host`, "nic1", `bf${name}-peer2`],
    ]);
    expect((await labDown(name)).removed).toHaveLength(3);
  });

  it("that a crash left half made is found by its name and removed", async () => {
    const script = `import { labUp } from ${JSON.stringify(built)}; await labUp({ name: "${name}" }); process.kill(process.pid, "SIGKILL");`;
    expect(spawnSync(process.execPath, ["--input-type=module", "-e", script]).signal).toBe("SIGKILL");
    execFileSync("ip", ["netns", "del", `bf${name}-peer`]);
    expect(await labList()).toMatchObject([{ name, whole: false }]);
    expect(await labFind(name)).toBeNull();
    expect((await labDown(name)).removed).toEqual([`bf${name}-host`]);
    expect(namespaces()).toEqual([]);
  });

  it("given up at any moment of its making leaves nothing", async () => {
    for (const after of [0, 10, 30, 60, 100]) {
      const stop = new AbortController();
      const making = labUp({ name, clients: 2, signal: stop.signal });
      setTimeout(() => stop.abort(), after);
      const failure = await making.then(
        () => null,
        (thrown: unknown) => thrown,
      );
      // It may have been quicker.
      if (failure === null) await labDown(name);
      else
        expect(failure).toMatchObject({
          code: "E_LAB",
          why: "it was interrupted, and nothing is left of it",
        });
      expect(namespaces()).toEqual([]);
      expect(await labList()).toEqual([]);
    }
  });

  it("whose command gets Ctrl-C while it is made leaves nothing", async () => {
    // It may be quicker than we are: then it is made again.
    for (let interrupted = false; !interrupted;) {
      // In a process group of its own, as on a terminal: ip(8) gets the signal too.
      const child = spawn(process.execPath, [cliPath, "lab", "up", name, "--json"], { detached: true });
      let stderr = "";
      child.stderr.on("data", (text) => (stderr += String(text)));
      const ended = new Promise((resolve) => child.once("close", resolve));
      while (namespaces().length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      if (child.exitCode === null) process.kill(-child.pid!, "SIGINT");
      interrupted = (await ended) === 1;
      if (interrupted) {
        expect(JSON.parse(stderr)).toMatchObject({ error: { code: "E_LAB" } });
      } else {
        expect(await labFind(name)).not.toBeNull();
        await labDown(name);
      }
      expect(namespaces()).toEqual([]);
      expect(await labList()).toEqual([]);
    }
  });

  it("names the processes that still live in it, and takes their wire away all the same", async () => {
    await labUp({ name });
    const sleeper = spawn("ip", ["netns", "exec", `bf${name}-peer`, "sleep", "600"]);
    await new Promise((resolve) => sleeper.once("spawn", resolve));
    while (!(await run("ip", ["netns", "pids", `bf${name}-peer`])).stdout.includes(`${sleeper.pid}`));
    expect((await labDown(name)).processes).toEqual([sleeper.pid]);
    sleeper.kill();
  });

  it("never takes over a namespace that it did not make", async () => {
    execFileSync("ip", ["netns", "add", `bf${name}-peer`]);
    try {
      await expect(labUp({ name })).rejects.toMatchObject({ code: "E_LAB" });
      expect(namespaces()).toEqual([`bf${name}-peer`]);
      expect(await labList()).toEqual([]);
    } finally {
      execFileSync("ip", ["netns", "del", `bf${name}-peer`]);
    }
  });

  it("needs capabilities, and says which", () => {
    const unprivileged = ["--reuid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
    const script = `import { labUp } from ${JSON.stringify(built)}; await labUp({ name: "${name}" }).catch((e) => console.log(e.code, e.why));`;
    const { stdout } = spawnSync(
      "setpriv",
      [...unprivileged, process.execPath, "--input-type=module", "-e", script],
      { encoding: "utf8", cwd: "/" },
    );
    expect(stdout.trim()).toBe("E_NOT_PRIVILEGED the process lacks CAP_NET_ADMIN and CAP_SYS_ADMIN");
  });
});

it("a snapshot shows what was changed, and nothing when it was changed back", async () => {
  const lab = await labUp({ name });
  const { netns, ifname } = lab.cards[0]!;
  const before = await snapshot(netns, ifname);
  await run("ip", ["-n", netns, "link", "set", "dev", ifname, "mtu", "1400"]);
  await run(...inNetns(netns, "tc", ["qdisc", "add", "dev", ifname, "clsact"]));
  const changed = differences(before, await snapshot(netns, ifname));
  expect(changed.some((line) => line.startsWith("ip -d link: +") && line.includes("mtu 1400"))).toBe(true);
  expect(changed.some((line) => line.includes("clsact"))).toBe(true);
  await run("ip", ["-n", netns, "link", "set", "dev", ifname, "mtu", "1500"]);
  await run(...inNetns(netns, "tc", ["qdisc", "del", "dev", ifname, "clsact"]));
  expect(differences(before, await snapshot(netns, ifname))).toEqual([]);
  await labDown(name);
});
