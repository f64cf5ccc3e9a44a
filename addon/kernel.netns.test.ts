// The native kernel against the real one: facts, settings, programs and events of a namespace of its own.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, readlinkSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type * as Addon from "./index.js";

const built = existsSync(path.join(import.meta.dirname, "bifurcate.node"));
const root = process.getuid?.() === 0;
const addon: typeof Addon | undefined = built ? await import("./index.js") : undefined;

const name = `bfaddon-${process.pid}`;
const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });

/** `return verdict`, two instructions of eBPF. */
function returning(verdict: number): Uint8Array {
  return Uint8Array.of(0xb7, 0, 0, 0, verdict, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0);
}

/** Waits for a condition that events bring about; the test's own time limit ends a wait in vain. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe.skipIf(!built || !root)("the native kernel (needs the built addon, and root)", () => {
  let kernel: Addon.NativeKernel;
  let netns: Addon.Netns;

  beforeEach(() => {
    ip("netns", "add", name);
    ip("-n", name, ..."link add v0 numrxqueues 4 numtxqueues 4 type veth peer name v1".split(" "));
    ip("-n", name, ..."link set v1 up".split(" "));
    ip("-n", name, ..."link set v0 up".split(" "));
    ip("-n", name, ..."addr add 10.11.0.1/24 dev v0".split(" "));
    ip("-n", name, ..."route add default via 10.11.0.254".split(" "));
    kernel = new addon!.NativeKernel();
    netns = kernel.openNetns(name);
  });

  afterEach(() => {
    netns.close();
    ip("netns", "del", name);
  });

  const v0 = (): Addon.Link => netns.links().find((link) => link.name === "v0")!;

  it("tells links, addresses and routes, and leaves the thread at home", () => {
    const home = readlinkSync("/proc/thread-self/ns/net");
    expect(v0()).toMatchObject({
      kind: "veth",
      up: true,
      carrier: true,
      ethernet: true,
      rxQueues: 4,
      master: null,
      xdp: null,
    });
    expect(v0().mac).toMatch(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
    expect(netns.addresses()).toContainEqual({
      ifindex: v0().index,
      family: 4,
      address: "10.11.0.1",
      prefix: 24,
    });
    expect(netns.routes()).toContainEqual({
      ifindex: v0().index,
      family: 4,
      destination: "default",
      gateway: "10.11.0.254",
    });
    expect(netns.sockets()).toEqual([]);
    expect(readlinkSync("/proc/thread-self/ns/net")).toBe(home);
    expect(home).not.toBe(`net:[${netns.inode}]`);
  });

  it("names the other end of a veth pair only where it is in the same namespace", () => {
    expect(v0().link).toBe(netns.links().find((link) => link.name === "v1")!.index);
    const other = `${name}-b`;
    ip("netns", "add", other);
    try {
      ip("-n", name, "link", "set", "v1", "netns", other);
      expect(v0().link).toBeNull();
    } finally {
      ip("netns", "del", other);
    }
  });

  it("tells and sets what a card has", () => {
    expect(netns.driver("v0").driver).toBe("veth");
    const two = { rx: 2, tx: 2, combined: 0, other: 0 };
    netns.setChannels("v0", two);
    expect(netns.channels("v0")).toMatchObject({ max: { rx: 4, tx: 4 }, now: two });
    expect(netns.speed("v0")).toBe(10_000);
    expect(netns.rss("v0")).toBeNull();
    expect(netns.ntupleRules("v0")).toBeNull();
    expect(netns.ntupleCapacity("v0")).toBe(0);
    netns.setFeature("v0", "rx-gro", true);
    expect(netns.features("v0")["rx-gro"]).toMatchObject({ active: true, fixed: false });
    expect(netns.xdpFeatures(v0().index)?.features).toContain("redirect");
  });

  it("attaches a program, names its owner, and takes it away again", async () => {
    const program = kernel.loadProgram({
      type: "xdp",
      name: "bf_addon",
      instructions: returning(1),
      maps: [],
    });
    expect(program.testRun(new Uint8Array(60)).verdict).toBe(1);
    const attachment = netns.attachXdp(program, v0().index, "driver");
    expect(v0().xdp).toEqual({ mode: "driver", programId: program.id });
    const owner = kernel.programOwner(program.id);
    expect(owner).toMatchObject({ name: "bf_addon" });
    expect(owner!.holders.map(({ pid }) => pid)).toContain(process.pid);
    expect(attachment.attached()).toBe(true);
    attachment.close();
    expect(v0().xdp).toBeNull();
    expect(attachment.attached()).toBe(false);
    const { id } = program;
    program.close();
    // Whoever looks at the kernel's programs has it open for a moment.
    await until(() => kernel.programOwner(id) === null);
  });

  it("gives maps to programs and keeps what is put into them", () => {
    const map = kernel.createMap({ type: "hash", name: "bf_addon", keySize: 4, valueSize: 4, maxEntries: 8 });
    const key = Uint8Array.of(1, 2, 3, 4);
    expect(map.lookup(key)).toBeNull();
    map.update(key, Uint8Array.of(9, 8, 7, 6));
    expect(map.lookup(key)).toEqual(Uint8Array.of(9, 8, 7, 6));
    map.delete(key);
    expect(map.lookup(key)).toBeNull();
    // r1 = map; r0 = 2; exit
    const code = Uint8Array.of(0x18, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...returning(2));
    const maps = [{ instruction: 0, map }];
    const program = kernel.loadProgram({ type: "xdp", name: "bf_map", instructions: code, maps });
    map.close();
    expect(program.testRun(new Uint8Array(14)).verdict).toBe(2);
    expect(() => map.lookup(key)).toThrow(expect.objectContaining({ code: "EBADF", call: "BpfMap" }));
    program.close();
  });

  it("throws what the kernel refused, with its call and arguments", () => {
    expect(() => netns.driver("nowhere")).toThrow(
      expect.objectContaining({ code: "ENODEV", call: "ioctl(ETHTOOL_GDRVINFO)", args: "dev=nowhere" }),
    );
    expect(() => kernel.openNetns("bf-no-such")).toThrow(expect.objectContaining({ code: "ENOENT" }));
    try {
      netns.driver("nowhere");
    } catch (error) {
      expect(error).toBeInstanceOf(Error);
      expect(String(error)).toBe("Error: ioctl(ETHTOOL_GDRVINFO) dev=nowhere: No such device (ENODEV)");
    }
    const exit = Uint8Array.of(0x95, 0, 0, 0, 0, 0, 0, 0);
    const bad = { type: "xdp", name: "bad", instructions: exit, maps: [] } as const;
    expect(() => kernel.loadProgram(bad)).toThrow(/R0 !read_ok/);
    const program = kernel.loadProgram({ ...bad, instructions: returning(2) });
    netns.attachXdp(program, v0().index, "driver");
    expect(() => netns.attachXdp(program, v0().index, "driver")).toThrow(
      expect.objectContaining({ code: "EBUSY" }),
    );
    program.close();
  });

  it("calls back when something happens to a link, without burning a core", async () => {
    const events: Addon.LinkEvent[] = [];
    const watch = netns.watchLinks((event) => events.push(event));
    const seen = (type: string): boolean => events.some((event) => event.type === type);
    ip("-n", name, "link", "set", "v0", "mtu", "1400");
    await until(() => seen("mtu"));
    expect(events.find(({ type }) => type === "mtu")).toMatchObject({ name: "v0", mtu: 1400 });
    ip("-n", name, "link", "set", "v0", "address", "02:00:00:00:00:77");
    await until(() => seen("address"));
    ip("-n", name, "link", "set", "v0", "down");
    await until(() => seen("down"));
    ip("-n", name, "link", "set", "v0", "name", "v7");
    await until(() => seen("renamed"));
    expect(events.find(({ type }) => type === "renamed")).toMatchObject({ name: "v7", oldName: "v0" });
    ip("-n", name, "link", "del", "v7");
    await until(() => seen("deleted"));
    watch.close();
  });

  it("lets a process end that only watches", () => {
    const loader = path.join(import.meta.dirname, "index.js");
    const code = `import { NativeKernel } from ${JSON.stringify(loader)};
      const watch = new NativeKernel().openNetns(${JSON.stringify(name)}).watchLinks(() => {});
      process.on("exit", () => console.log(typeof watch.close));`;
    const said = execFileSync(process.execPath, ["--input-type=module", "-e", code], {
      encoding: "utf8",
      timeout: 200_000,
    });
    expect(said).toBe("function\n");
  });

  it("knows the process", () => {
    expect(kernel.capabilities()).toContain("CAP_NET_ADMIN");
    expect(kernel.release()).toBe(readFileSync("/proc/sys/kernel/osrelease", "utf8").trim());
  });
});
