// Which NICs a list means, how they are wired, and what QEMU is told.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { DEFAULT_MACHINE, layOut, machineKey, parseNics, type Machine } from "./machine.js";
import { bridgedWires, qemuArguments } from "./qemu.js";

const wiring = (text: string): (readonly [string, string, number | null])[] =>
  layOut(parseNics(text)).map((port) => [port.name, port.nic.model, port.wire] as const);

describe("a list of NICs", () => {
  it("wires equal neighbours to each other", () => {
    expect(wiring("igb,igb")).toEqual([
      ["nic0", "igb", 0],
      ["nic1", "igb", 0],
    ]);
  });

  it("gives a virtio card as far end to each that is left over", () => {
    expect(wiring("e1000e,vmxnet3,vmxnet3,vmxnet3")).toEqual([
      ["nic0", "e1000e", 0],
      ["far0", "virtio", 0],
      ["nic1", "vmxnet3", 1],
      ["nic2", "vmxnet3", 1],
      ["nic3", "vmxnet3", 2],
      ["far3", "virtio", 2],
    ]);
  });

  it("may be empty", () => expect([parseNics(""), parseNics("none")]).toEqual([[], []]));

  for (const wrong of [
    "ixgbe",
    "igb:4",
    "virtio:0",
    "virtio:9",
    "virtio:x",
    "igb,,igb",
    "igb,".repeat(8) + "igb",
  ]) {
    it(`refuses '${wrong}'`, () => {
      expect(() => parseNics(wrong)).toThrowError(expect.objectContaining({ code: "E_BAD_OPTION" }) as Error);
    });
  }

  it("gives every port a MAC address of its own", () => {
    const macs = layOut(parseNics("igb,e1000e,virtio:2,vmxnet3,igb,igb,virtio,virtio")).map(
      (port) => port.mac,
    );
    expect(new Set(macs).size).toBe(macs.length);
  });

  it("leaves the far end of a vhost-user NIC to the host", () => {
    const ports = layOut([{ model: "virtio", vhostUser: "s" }, { model: "virtio" }]);
    expect(ports.map((port) => [port.name, port.wire])).toEqual([
      ["nic0", null],
      ["nic1", 0],
      ["far1", 0],
    ]);
  });
});

describe("QEMU's arguments", () => {
  const files = { root: "r", project: "p", kernel: "k", console: "c", control: "s" };
  const told = (machine: Partial<Machine>): string =>
    qemuArguments({ ...DEFAULT_MACHINE, ...machine }, files).join(" ");

  it("never ask for anything but software emulation", () => {
    expect(told({})).toContain("-accel tcg,thread=multi");
    expect(told({})).not.toContain("kvm");
  });

  it("put two NICs into one slot where the second says so", () => {
    const nics = [{ model: "e1000e" }, { model: "virtio", sharesSlot: true }] as const;
    expect(told({ nics })).toMatch(/-device e1000e,\S+,addr=0x18,multifunction=on /);
    expect(told({ nics })).toMatch(/-device virtio-net-pci,\S+,addr=0x18\.1,iommu_platform=on/);
    expect(told({ nics: [{ model: "e1000e" }, { model: "virtio" }] })).not.toContain("multifunction");
  });

  it("put an IOMMU in only when asked for", () => {
    expect(told({ iommu: "intel" })).toMatch(
      /-device intel-iommu.* -append .*intel_iommu=on|intel_iommu=on.*intel-iommu/,
    );
    expect(told({ iommu: "virtio" })).toContain("virtio-iommu-pci");
    expect(told({ iommu: "none" })).not.toContain("iommu-pci");
  });

  it("bridge taps where a wire has several queues, and use a hub elsewhere", () => {
    const nics = parseNics("virtio:4,virtio,igb,igb");
    expect(bridgedWires({ ...DEFAULT_MACHINE, nics }).map((wire) => wire.map((port) => port.name))).toEqual([
      ["nic0", "nic1"],
    ]);
    const text = told({ nics });
    expect(text).toContain("tap,id=nic0,ifname=nic0,script=no,downscript=no,queues=4");
    expect(text).toContain("tap,id=nic1,ifname=nic1,script=no,downscript=no -device");
    expect(text).toContain("hubport,id=nic2,hubid=1");
  });

  it("share the guest's memory with a vhost-user backend", () => {
    const text = told({ nics: [{ model: "virtio", vhostUser: "sock" }] });
    expect(text).toContain("memory-backend-memfd,id=memory,size=2048M,share=on");
    expect(text).toContain("socket,id=nic0-socket,path=sock");
  });

  it("have what docs/vhost-user.md tells QEMU for a VM at a socket", () => {
    const page = readFileSync(new URL("../../../docs/vhost-user.md", import.meta.url), "utf8");
    const [, typed] = /^qemu-system-x86_64 (.*?)^```$/ms.exec(page)!;
    // Cards of before virtio 1.0 are turned off in the lab, and refused by the device end.
    const text = told({ memory: 1024, nics: [{ model: "virtio", vhostUser: "/run/vm0.sock" }] }).replaceAll(
      ",disable-legacy=on",
      "",
    );
    const mac = /mac=(\S+)/.exec(text)![1]!;
    const options = typed!
      .replaceAll("net0", "nic0")
      .replaceAll(/(id|chardev)=vm0/g, "$1=nic0-socket")
      .replace(/mac=\S+/, `mac=${mac}`)
      .match(/-(object|machine|chardev|netdev|device) \S+/g)!;
    expect(options).toHaveLength(5);
    for (const option of options) expect(text).toContain(option);
  });

  it("give a vhost-user NIC its queues and its layout of rings, and no tap", () => {
    const nics = [{ model: "virtio" as const, vhostUser: "sock", queues: 2, packed: true }];
    const text = told({ nics });
    expect(text).toContain("vhost-user,id=nic0,chardev=nic0-socket,queues=2");
    expect(text).toContain("mq=on,vectors=6,packed=on");
    expect(text).not.toContain("tap,");
    expect(bridgedWires({ ...DEFAULT_MACHINE, nics })).toEqual([]);
  });
});

describe("the key under which guests are shared", () => {
  it("tells machines apart by everything that makes them", () => {
    const machines: Partial<Machine>[] = [
      {},
      { nics: parseNics("igb") },
      { nics: parseNics("virtio") },
      { nics: parseNics("virtio:2") },
      { nics: [{ model: "virtio", packed: true }] },
      { iommu: "none" },
      { kernel: "stock" },
      { memory: 4096 },
      { cpus: 4 },
    ];
    const keys = machines.map((machine) => machineKey({ ...DEFAULT_MACHINE, ...machine }));
    expect(new Set(keys).size).toBe(machines.length);
  });
});
