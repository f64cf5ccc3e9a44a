// The comparison on a real lab: what can run is measured, nothing is left behind, and a card that is used, changes or goes is told.
import { readFileSync, rmSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Comparison } from "@bifurcate/control";
import { ip, labDown, labList, labUp, type LabCard } from "@bifurcate/lab";
import { cli, cliPath, errorOf } from "@bifurcate/lab/harness";
import { spawn } from "node:child_process";

const root = process.getuid?.() === 0;
const name = `m${process.pid}`;
const LIMIT = 600_000;
let folder = "";
let card: LabCard;

beforeAll(async () => {
  if (!root) return;
  folder = mkdtempSync(path.join(tmpdir(), "bifurcate-compare-test-"));
  process.env["BIFURCATE_STATE_DIR"] = folder;
  card = (await labUp({ name, queues: 1 })).cards[0]!;
});

beforeEach(({ skip }) => skip(!root, "needs root: it makes network namespaces"));

afterAll(async () => {
  if (folder === "") return;
  if ((await labList()).some((lab) => lab.name === name)) await labDown(name);
  rmSync(folder, { recursive: true, force: true });
});

const onCard = (...more: string[]): string[] => [
  ...["compare", card.ifname, "--netns", card.netns, "--run", "--seconds", "3"],
  ...["--peer", card.peer.ifname, "--peer-netns", card.peer.netns, "--json", ...more],
];

/** Starts a measurement, and calls `then` when it says that it is measuring AF_PACKET; the error that it ends with. */
async function disturbed(then: () => Promise<unknown>): Promise<{ code: string; why: string }> {
  const child = spawn(process.execPath, [cliPath, ...onCard("--force")], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stderr = "";
  let stdout = "";
  child.stdout.on("data", (chunk) => (stdout += String(chunk)));
  await new Promise<void>((resolve, reject) => {
    child.stderr.on("data", (chunk) => {
      stderr += String(chunk);
      if (stderr.includes("measuring AF_PACKET")) resolve();
    });
    child.once("close", () => reject(new Error(`it ended too early: ${stderr}`)));
  });
  const closed = new Promise<number | null>((resolve) => child.once("close", (status) => resolve(status)));
  await then();
  expect(await closed).toBe(1);
  expect(stdout).toBe("");
  return errorOf({ status: 1, stdout, stderr });
}

describe("compare --run", () => {
  it(
    "measures in a lab what can run, says why of the rest, and takes the lab away",
    async () => {
      const file = path.join(folder, "comparison.json");
      const labs = (await labList()).length;
      const ended = await cli("compare", "--run", "--seconds", "3", "--json", "--output", file);
      expect([ended.status, ended.stdout]).toEqual([0, ""]);
      expect((await labList()).length).toBe(labs);
      const { comparisons } = JSON.parse(readFileSync(file, "utf8")) as { comparisons: Comparison[] };
      expect(comparisons).toHaveLength(1);
      const made = comparisons[0]!;
      expect(made.card?.driver).toBe("veth");
      for (const { mechanism, cells, measurement } of made.mechanisms) {
        const says = cells.performance.map((each) => each.says).join("; ");
        if (!["kernel socket", "AF_PACKET", "AF_XDP copy", "vhost-user"].includes(mechanism)) {
          expect(says, mechanism).toMatch(/not measured: ./);
          expect(measurement).toBeNull();
          continue;
        }
        expect(measurement, `${mechanism}: ${says}`).not.toBeNull();
        const { saturated, latency, kernel } = measurement!;
        expect(saturated.received).toBeGreaterThan(0);
        expect(saturated.offered).toBeGreaterThanOrEqual(saturated.received * 0.99);
        expect(saturated.cpuPerPacket).toBeGreaterThan(0);
        expect(latency.p50).toBeGreaterThan(0);
        expect(latency.p99).toBeGreaterThanOrEqual(latency.p50!);
        if (!("quiet" in kernel)) throw new Error(`${mechanism}: ${JSON.stringify(kernel)}`);
        for (const phase of [kernel.quiet, kernel.saturated, kernel.stopped]) {
          // The kernel's traffic goes on, whatever becomes of the user's queue.
          expect(phase.answered, mechanism).toBeGreaterThan(0);
          expect(phase.p99).toBeGreaterThan(0);
        }
      }
      const path_ = (which: string) =>
        made.mechanisms.find((each) => each.mechanism === which)!.measurement!.path;
      expect(path_("AF_XDP copy")).toMatch(/^af_xdp, copy, XDP in the driver, queue 0/);
      expect(path_("AF_PACKET")).toMatch(/^af_packet, copy/);
      expect(path_("vhost-user")).toMatch(/^vhost-user, /);
    },
    LIMIT,
  );

  it("refuses a card that the kernel uses, and changes nothing of it", async () => {
    const before = await ip([`-d link show dev ${card.ifname}`], card.netns);
    const error = errorOf(await cli(...onCard()));
    expect(error.code).toBe("E_CARD_IN_USE");
    expect(error.why).toContain("192.0.2.1");
    expect(await ip([`-d link show dev ${card.ifname}`], card.netns)).toBe(before);
  });

  it(
    "tells of a card that changes",
    async () => {
      const { code, why } = await disturbed(() => ip([`link set dev ${card.ifname} mtu 1400`], card.netns));
      await ip([`link set dev ${card.ifname} mtu 1500`], card.netns);
      expect(code).toBe("E_CHANGED_UNDERNEATH");
      expect(why).toContain("MTU: 1500, now 1400");
    },
    LIMIT,
  );

  it(
    "tells of a card that goes",
    async () => {
      const { code } = await disturbed(() => ip([`link del dev ${card.ifname}`], card.netns));
      expect(code).toBe("E_INTERFACE_GONE");
    },
    LIMIT,
  );
});

describe("compare, mistyped", () => {
  const cases: [string, string[], string, RegExp][] = [
    ["a file that cannot be written", ["--output", "/proc/nosuch/file"], "E_OUTPUT", /nosuch/],
    ["two forms", ["--html", "--markdown"], "E_USAGE", /--markdown and --html exclude/],
    ["a card without who sends to it", ["nic0", "--run"], "E_USAGE", /other end of its wire/],
    ["a peer without a measurement", ["nic0", "--peer", "peer0"], "E_USAGE", /for measuring/],
    ["a namespace without a card", ["--run", "--netns", "bflab-host"], "E_USAGE", /none was named/],
    ["a mechanism that is none", ["--only", "telepathy"], "E_BAD_OPTION", /no such mechanism/],
    ["no protection without a measurement", ["--no-memory-protection"], "E_USAGE", /for measuring/],
    ["a time that is none", ["--run", "--seconds", "0"], "E_BAD_OPTION", /from 1 to 60/],
    ["a card that is not there", ["nosuchcard"], "E_NO_SUCH_INTERFACE", /namespace has/],
  ];
  for (const [what, words, code, why] of cases) {
    it(what, async () => {
      const { stderr, status } = await cli("compare", ...words);
      expect(status).toBe(code === "E_OUTPUT" || code === "E_NO_SUCH_INTERFACE" ? 1 : 2);
      expect(stderr).toContain(`code: ${code}`);
      expect(stderr).toMatch(why);
    });
  }
});
