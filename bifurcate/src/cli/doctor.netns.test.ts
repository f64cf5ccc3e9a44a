// The doctor on a real lab: healthy, then with one thing broken after the other, each named with its exit status.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { nativeKernel } from "@bifurcate/control";
import { ip, labDown, labList, labUp, type LabCard } from "@bifurcate/lab";
import { cli, endAll, errorOf, RunningSplit } from "@bifurcate/lab/harness";

const root = process.getuid?.() === 0;
const name = `d${process.pid}`;
let state = "";
let card: LabCard;

beforeAll(async () => {
  if (!root) return;
  state = mkdtempSync(path.join(tmpdir(), "bifurcate-doctor-"));
  process.env["BIFURCATE_STATE_DIR"] = state;
  card = (await labUp({ name })).cards[0]!;
});

beforeEach(({ skip }) => skip(!root, "needs root: it makes network namespaces"));

afterAll(async () => {
  await endAll();
  for (const lab of await labList()) await labDown(lab.name);
  if (state !== "") rmSync(state, { recursive: true, force: true });
});

interface Report {
  readonly healthy: boolean;
  readonly findings: { readonly name: string; readonly level: string; readonly says: string }[];
  readonly cards: { readonly mechanisms: { readonly name: string; readonly ready: boolean }[] }[];
}

/** Runs the doctor on the card; its problems, which the error on stderr has to name too. */
async function problems(...more: string[]): Promise<string[]> {
  const ended = await cli("doctor", card.ifname, "--netns", card.netns, "--json", ...more);
  const report = JSON.parse(ended.stdout) as Report;
  const names = report.findings.filter((each) => each.level === "problem").map((each) => each.name);
  expect(report.healthy).toBe(names.length === 0);
  expect(ended.status).toBe(names.length === 0 ? 0 : 1);
  if (names.length > 0) {
    const error = errorOf(ended);
    expect(error.code).toBe("E_UNHEALTHY");
    for (const each of names) expect(error.why).toContain(each);
  }
  return names;
}

describe("the doctor", () => {
  it("finds nothing wrong with a healthy lab, and says which mechanisms are ready", async () => {
    expect(await problems()).toEqual([]);
    const { stdout } = await cli("doctor", card.ifname, "--netns", card.netns);
    expect(stdout).toContain("no problems\n");
    expect(stdout).toMatch(/^AF_XDP copy +ready$/m);
    expect(stdout).toMatch(/^AF_XDP zero-copy +lacks 1$/m);
    expect(stdout).toContain("the driver veth has no zero-copy");
  });

  it("finds nothing wrong beside a live split", async () => {
    const split = new RunningSplit([card.ifname, "--netns", card.netns, "--flow", "udp dst port 53"]);
    await split.event("split");
    expect(await problems()).toEqual([]);
    await split.end();
  });

  it("a card whose other end is down", async () => {
    await ip([`link set dev ${card.peer.ifname} down`], card.peer.netns);
    expect(await problems()).toEqual(["no-carrier"]);
    await ip([`link set dev ${card.peer.ifname} up`], card.peer.netns);
  });

  it("a card that is down", async () => {
    await ip([`link set dev ${card.ifname} down`], card.netns);
    expect(await problems()).toEqual(["link-down"]);
    await ip([`link set dev ${card.ifname} up`], card.netns);
  });

  it("an MTU that the driver does not take with XDP", async () => {
    await ip([`link set dev ${card.ifname} mtu 9000`], card.netns);
    // veth takes frames of several buffers, so that its own limit stands in nobody's way: only MTUs beyond it count.
    const { stdout } = await cli("devices", card.ifname, "--netns", card.netns, "--json");
    const [device] = (JSON.parse(stdout) as { devices: { mechanisms: { name: string; can: boolean }[] }[] })
      .devices;
    const takes = device!.mechanisms.find((each) => each.name === "af_xdp driver")!.can;
    expect(await problems()).toEqual(takes ? [] : ["mtu-too-large"]);
    await ip([`link set dev ${card.ifname} mtu 1500`], card.netns);
  });

  it("an XDP program of somebody else, by name and owner", async () => {
    const kernel = nativeKernel();
    const netns = kernel.openNetns(card.netns);
    // r0 = XDP_PASS; exit
    const instructions = Uint8Array.of(0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0);
    const program = kernel.loadProgram({ type: "xdp", name: "stranger", instructions, maps: [] });
    const { index } = netns.links().find((link) => link.name === card.ifname)!;
    const attachment = netns.attachXdp(program, index, "driver");
    try {
      expect(await problems()).toEqual(["foreign-program"]);
      const { stdout } = await cli("doctor", card.ifname, "--netns", card.netns);
      expect(stdout).toContain(`(stranger), held by`);
      expect(stdout).toContain(`(pid ${process.pid})`);
      expect(stdout).toContain(`ip link set dev ${card.ifname} xdp off`);
    } finally {
      attachment.close();
      program.close();
      netns.close();
    }
    expect(await problems()).toEqual([]);
  });

  it("writes its report to a file, or says why it cannot", async () => {
    // Not a .json in the state folder itself, which would count as a journal, and rightly as one that cannot be read.
    const file = path.join(state, "report.txt");
    const written = await cli("doctor", card.ifname, "--netns", card.netns, "--json", "--output", file);
    expect([written.status, written.stdout]).toEqual([0, ""]);
    expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({ healthy: true });
    const nowhere = path.join(state, "nowhere", "report.json");
    const refused = await cli("doctor", "--json", "--output", nowhere);
    expect([refused.status, errorOf(refused).code]).toEqual([1, "E_OUTPUT"]);
    expect(errorOf(refused).why).toContain("ENOENT");
  });

  it("a card that is not there", async () => {
    const ended = await cli("doctor", "nix9", "--netns", card.netns, "--json");
    expect([ended.status, errorOf(ended).code]).toEqual([1, "E_NO_SUCH_INTERFACE"]);
  });
});
