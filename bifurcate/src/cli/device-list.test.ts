// How devices are told: relations, queues and mechanisms, from a kernel that a test answers for.
import type { Kernel, Link, Netns } from "@bifurcate/control";
import { describe, expect, it } from "vitest";
import { listDevices } from "./device-list.js";
import { renderDevices } from "./render/devices.js";

function link(index: number, name: string, more: Partial<Link> = {}): Link {
  return {
    index,
    name,
    mac: `02:00:00:00:00:0${index}`,
    mtu: 1500,
    up: true,
    carrier: true,
    ethernet: true,
    loopback: false,
    kind: null,
    master: null,
    link: null,
    vlanId: null,
    rxQueues: 8,
    txQueues: 8,
    xdp: null,
    ...more,
  };
}

const links = [
  link(1, "lo", { ethernet: false, loopback: true }),
  link(2, "eth0", { master: 4 }),
  link(3, "eth0.7", { kind: "vlan", vlanId: 7, link: 2, rxQueues: 1 }),
  link(4, "br0", { kind: "bridge", rxQueues: 1 }),
  link(5, "eth1", { up: false, carrier: false }),
];

/** A card as igb is: ntuple rules, zero-copy, eight queues of which four are in use. */
const netns = {
  inode: 1,
  links: () => links,
  addresses: () => [],
  routes: () => [],
  sockets: () => [],
  driver: (name: string) => {
    if (name === "eth1")
      throw Object.assign(new Error("ioctl: Operation not permitted (EPERM)"), { code: "EPERM" });
    return { driver: "igb", version: "", firmware: "", bus: "0000:01:00.0" };
  },
  channels: () => {
    const channels = { rx: 0, tx: 0, other: 1 };
    return { max: { ...channels, combined: 8 }, now: { ...channels, combined: 4 } };
  },
  rings: () => null,
  rss: () => ({ indirection: [0, 1, 2, 3], key: "", hashFunction: 1 }),
  features: () => ({ "rx-ntuple-filter": { active: true, requested: true, available: true, fixed: false } }),
  ntupleRules: () => [],
  ntupleCapacity: () => 64,
  tcIngress: () => ({ tcx: true, clsact: false, filters: [] }),
  canLeaseQueues: () => true,
  queueLeases: () => [],
  xdpFeatures: () => ({
    features: ["basic", "redirect", "xsk-zerocopy"],
    zeroCopyMaxSegments: 1,
    rxMetadata: [],
  }),
} as unknown as Netns;
const kernel = {
  capabilities: () => [],
  release: () => "6.18.0",
  programOwner: () => null,
} as unknown as Kernel;

const devices = listDevices(kernel, netns, null, (name) => (name === "eth0" ? 1000 : null));
const device = (name: string): (typeof devices)[number] => devices.find((each) => each.name === name)!;

describe("a list of devices", () => {
  it("leaves the loopback out", () => {
    expect(devices.map((each) => each.name)).toEqual(["eth0", "eth0.7", "br0", "eth1"]);
  });

  it("tells bridge, ports and VLANs", () => {
    expect(device("eth0").relations).toMatchObject({
      master: { name: "br0", kind: "bridge" },
      vlans: ["eth0.7"],
    });
    expect(device("br0").relations.ports).toEqual(["eth0"]);
    expect(device("eth0.7").relations.vlan).toEqual({ id: 7, on: "eth0" });
  });

  it("tells queues in use and queues that there could be", () => {
    expect(device("eth0").queues).toEqual({ now: 4, max: 8 });
  });

  it("tells that a card with rules and zero-copy can do everything but lend a queue", () => {
    expect(device("eth0").mechanisms).toEqual([
      { name: "af_xdp driver", can: true, why: null },
      { name: "af_xdp generic", can: true, why: null },
      { name: "zero-copy", can: true, why: null },
      { name: "ntuple", can: true, why: "64 rules free" },
      {
        name: "queue lease",
        can: false,
        why: "igb is not among the drivers with queue management (bnxt_en, fbnic, gve, mlx5_core, netdevsim)",
      },
      { name: "af_packet", can: true, why: "copies every frame" },
    ]);
  });

  it("tells what an older kernel leaves open, and does not promise it", () => {
    const older = { ...netns, xdpFeatures: () => null } as unknown as Netns;
    const [eth0] = listDevices(kernel, older, "eth0", () => null);
    const why = "the kernel does not tell, it is tried";
    expect(eth0!.mechanisms.slice(0, 3)).toEqual([
      { name: "af_xdp driver", can: true, why },
      { name: "af_xdp generic", can: true, why: null },
      { name: "zero-copy", can: true, why },
    ]);
  });

  it("takes a card whose driver counts no queues for one of one queue", () => {
    const none = { rx: 0, tx: 0, combined: 0, other: 0 };
    const uncounted = { ...netns, channels: () => ({ max: none, now: none }) } as unknown as Netns;
    const [eth0] = listDevices(kernel, uncounted, "eth0", () => null);
    expect(eth0!.queues).toEqual({ now: 1, max: null });
  });

  it("goes on when one device does not answer, and says why", () => {
    for (const mechanism of device("eth1").mechanisms) {
      expect(mechanism).toMatchObject({ can: false, why: expect.stringContaining("EPERM") });
    }
  });

  it("fails with the names that there are when one is named that is not there", () => {
    expect(() => listDevices(kernel, netns, "eth9", () => null)).toThrow(/eth0.*br0/);
  });

  it("is a table for a person", () => {
    const [heading, eth0] = renderDevices(devices).split("\n");
    expect(heading).toMatch(/^device +driver +queues +speed +MTU +state +af_xdp driver +/);
    expect(eth0).toMatch(
      /^eth0 +igb +4 of 8 +1 Gbit\/s +1500 +up +yes +yes +yes +yes +no +yes +in bridge br0; carries VLANs eth0\.7$/,
    );
  });
});
