// The walk through the lab in docs/cli.md, line by line as a user would type it, and the documents that scripts read.
import { spawn, spawnSync, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Readable } from "node:stream";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ip, labDown, labList, labUp, type LabCard } from "@bifurcate/lab";
import { checkout, cli, cliPath } from "@bifurcate/lab/harness";
import { differences, snapshot } from "@bifurcate/lab/snapshot";

const root = process.getuid?.() === 0;
const text = readFileSync(path.join(checkout, "docs/cli.md"), "utf8");
const walk = text.slice(text.indexOf("<!-- walk: begin -->"), text.indexOf("<!-- walk: end -->"));
const lines = [...walk.matchAll(/^\$ bifurcate (.*)$/gm)].map((match) => match[1]!);
let state = "";

beforeAll(() => {
  state = mkdtempSync(path.join(tmpdir(), "bifurcate-walk-"));
  process.env["BIFURCATE_STATE_DIR"] = state;
});

beforeEach(({ skip }) => {
  skip(!root, "needs root: it makes network namespaces");
});

afterAll(async () => {
  for (const lab of await labList()) await labDown(lab.name);
  rmSync(state, { recursive: true, force: true });
});

describe("docs/cli.md, the walk through the lab", () => {
  /** Keeps a mount namespace in which no network namespace has a name yet: somebody's own lab may be up. */
  let apart: ChildProcessByStdio<null, Readable, null>;

  beforeAll(async () => {
    if (!root) return;
    const script = "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && echo ready && exec sleep 600";
    apart = spawn("unshare", ["--mount", "--propagation", "private", "sh", "-c", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(apart.stdout, "data");
  });

  afterAll(() => {
    apart?.kill("SIGKILL");
  });

  for (const line of lines) {
    it(`$ bifurcate ${line}`, () => {
      // By a shell, in the checkout: the line is typed as it stands.
      const typed = ["sh", "-c", `'${process.execPath}' '${cliPath}' ${line}`];
      const shell = spawnSync("nsenter", [`--target=${apart.pid}`, "--mount", "--wd=.", ...typed], {
        encoding: "utf8",
        cwd: checkout,
      });
      expect(shell.status, shell.stderr).toBe(0);
      expect(shell.stdout).not.toBe("");
    });
  }

  it("leaves nothing", async () => {
    expect(lines.length).toBeGreaterThan(5);
    expect(await labList()).toEqual([]);
  });
});

describe("documents for scripts", () => {
  let card: LabCard;
  const name = `w${process.pid}`;

  beforeAll(async () => {
    if (root) card = (await labUp({ name })).cards[0]!;
  });

  it("devices --json: driver, queues, relations, and each mechanism with why not", async () => {
    const { status, stdout } = await cli("devices", "--netns", card.netns, "--json");
    expect(status).toBe(0);
    expect(stdout.indexOf("\n")).toBe(stdout.length - 1);
    const { devices } = JSON.parse(stdout) as { devices: unknown[] };
    expect(devices).toMatchObject([
      {
        name: "nic0",
        driver: "veth",
        mac: card.mac,
        queues: { now: 4 },
        up: true,
        relations: { master: null, vlan: null, vlans: [], ports: [] },
        mechanisms: [
          { name: "af_xdp driver", can: true },
          { name: "af_xdp generic", can: true },
          { name: "zero-copy", can: false, why: expect.stringContaining("veth") },
          { name: "ntuple", can: false, why: expect.stringContaining("veth has no ntuple rules") },
          { name: "queue lease", can: false, why: expect.stringContaining("queue lease") },
          { name: "af_packet", can: true },
        ],
      },
    ]);
  });

  it("devices tells a bridge and its port", async () => {
    await ip(["link add br0 type bridge", "link set dev nic0 master br0"], card.netns);
    const { stdout } = await cli("devices", "--netns", card.netns, "--json");
    const { devices } = JSON.parse(stdout) as { devices: { name: string; relations: unknown }[] };
    const relations = Object.fromEntries(devices.map((device) => [device.name, device.relations]));
    expect(relations).toMatchObject({
      nic0: { master: { name: "br0", kind: "bridge" } },
      br0: { ports: ["nic0"] },
    });
    await ip(["link del dev br0"], card.netns);
  });

  it("split --dry-run --json: the plan as one document, and nothing is changed", async () => {
    const before = await snapshot(card.netns, card.ifname);
    const { status, stdout } = await cli(
      ...["split", card.ifname, "--netns", card.netns, "--flow", "udp dst port 53", "--dry-run", "--json"],
    );
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      plan: {
        version: 1,
        device: { name: "nic0", driver: "veth" },
        flows: ["udp dst port 53"],
        path: {
          kind: "shared-queues",
          backend: "af_xdp",
          mode: "driver",
          queues: [0, 1, 2, 3],
          steering: "xdp",
        },
        ladder: [{ taken: true }, { taken: false }, { taken: false }],
        steps: [],
      },
    });
    expect(differences(before, await snapshot(card.netns, card.ifname))).toEqual([]);
  });
});
