// Turns a machine into QEMU's command line.

import { layOut, type GuestPort, type Machine } from "./machine.js";

/** Files that a boot needs, on the host. */
export interface BootFiles {
  /** The root file system, an ext4 image; never written. */
  readonly root: string;
  /** The project, a tar archive. */
  readonly project: string;
  readonly kernel: string;
  /** For kernels with modules: what loads the disk's drivers, and an image of all modules. */
  readonly initrd?: string;
  readonly modules?: string;
  /** An image with the host's Node. */
  readonly node?: string;
  /** The console's output goes here. */
  readonly console: string;
  /** The control channel: a unix socket that QEMU listens on. */
  readonly control: string;
}

/** `-device` of each model. iommu_platform puts virtio behind the IOMMU, and AF_XDP zero-copy needs it. */
const DEVICES: Readonly<Record<GuestPort["nic"]["model"], string>> = {
  igb: "igb",
  e1000e: "e1000e",
  vmxnet3: "vmxnet3",
  virtio: "virtio-net-pci,disable-legacy=on",
};

/** A value as QEMU reads it within an option: a comma would begin the next key. */
function value(text: string): string {
  return text.replaceAll(",", ",,");
}

/** The slot of two NICs that share one. */
const SHARED_SLOT = "0x18";

/** Where a NIC sits on the root bus, where that is not left to QEMU. */
function seatOf(nic: Machine["nics"][number], nics: Machine["nics"]): string {
  if (nic.sharesSlot) return `,addr=${SHARED_SLOT}.1`;
  return nics[nics.indexOf(nic) + 1]?.sharesSlot ? `,addr=${SHARED_SLOT},multifunction=on` : "";
}

function nicArguments(port: GuestPort, slot: number, tapped: boolean, seat: string): string[] {
  const { nic, name, wire } = port;
  const queues = nic.queues ?? 1;
  // Vectors: one for each direction of each queue pair, one for the control queue, one for changes.
  const several = queues > 1 ? `,mq=on,vectors=${2 * queues + 2}` : "";
  const packed = nic.packed ? ",packed=on" : "";
  let device = `${DEVICES[nic.model]},netdev=${name},mac=${port.mac}${several}${packed}${seat}`;
  if (nic.vhostUser !== undefined) {
    return [
      ...["-chardev", `socket,id=${name}-socket,path=${value(nic.vhostUser)}`],
      ...["-netdev", `vhost-user,id=${name},chardev=${name}-socket${queues > 1 ? `,queues=${queues}` : ""}`],
      ...["-device", device],
    ];
  }
  if (nic.model === "virtio") device += ",iommu_platform=on";
  // One hub a wire. A hub's ports have one queue; several need a tap each, bridged in a namespace of QEMU's own.
  const netdev = tapped
    ? `tap,id=${name},ifname=${name},script=no,downscript=no${queues > 1 ? `,queues=${queues}` : ""}`
    : `hubport,id=${name},hubid=${wire}`;
  if (nic.model !== "igb") return ["-netdev", netdev, "-device", device];
  // SR-IOV needs a PCI Express port above the NIC.
  return [
    ...["-netdev", netdev],
    ...["-device", `pcie-root-port,id=${name}-port,chassis=${slot},slot=${slot}`],
    ...["-device", `${device},bus=${name}-port`],
  ];
}

function iommuArguments(machine: Machine): string[] {
  if (machine.iommu === "intel") return ["-device", "intel-iommu,intremap=on,caching-mode=on"];
  return machine.iommu === "virtio" ? ["-device", "virtio-iommu-pci"] : [];
}

/** The wires with more than one queue at an end: they have taps at both ends, and a bridge between them. */
export function bridgedWires(machine: Machine): GuestPort[][] {
  const ports = layOut(machine.nics).filter((port) => port.wire !== null);
  const wires = new Set(ports.filter((port) => (port.nic.queues ?? 1) > 1).map((port) => port.wire));
  return [...wires].map((wire) => ports.filter((port) => port.wire === wire));
}

/** Arguments of qemu-system-x86_64: software emulation only. */
export function qemuArguments(machine: Machine, files: BootFiles): string[] {
  const vhostUser = machine.nics.some((nic) => nic.vhostUser !== undefined);
  const tapped = bridgedWires(machine).flat();
  const isTapped = (port: GuestPort): boolean => tapped.some((each) => each.name === port.name);
  const disk = (id: string, file: string, slot: string): string[] => [
    // What does not fit on the host's disk is an error in the guest; left alone, QEMU would stop it without a word.
    ...["-drive", `file=${value(file)},if=none,id=${id},format=raw,snapshot=on,werror=report,rerror=report`],
    ...["-device", `virtio-blk-pci,drive=${id},addr=${slot},serial=${id}`],
  ];
  const commandLine = [
    "console=ttyS0 panic=-1 loglevel=4 net.ifnames=0",
    // The test of the timer's interrupt counts ticks against a busy loop: on a busy host it fails, and that is a panic.
    "no_timer_check",
    // Built in, these drivers would make an interface each that nobody asked for.
    "bonding.max_bonds=0 dummy.numdummies=0",
    machine.iommu === "intel" ? "intel_iommu=on iommu=pt" : "",
    files.initrd === undefined ? "root=/dev/vda rw init=/sbin/init" : "",
  ];
  return [
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
    ...["-M", machine.iommu === "intel" ? "q35,kernel-irqchip=split" : "q35"],
    ...[
      "-accel",
      "tcg,thread=multi",
      "-cpu",
      "max",
      "-smp",
      String(machine.cpus),
      "-m",
      `${machine.memory}M`,
    ],
    // A vhost-user backend maps the guest's memory, so it is a file that both hold.
    ...(vhostUser
      ? [
          ...["-object", `memory-backend-memfd,id=memory,size=${machine.memory}M,share=on`],
          ...["-machine", "memory-backend=memory"],
        ]
      : []),
    ...["-kernel", files.kernel, ...(files.initrd === undefined ? [] : ["-initrd", files.initrd])],
    ...["-append", commandLine.filter(Boolean).join(" ")],
    ...["-chardev", `file,id=console,path=${value(files.console)}`, "-serial", "chardev:console"],
    // Before all other PCI devices, which it translates for.
    ...iommuArguments(machine),
    ...disk("root", files.root, "0x10"),
    ...disk("project", files.project, "0x11"),
    ...(files.modules === undefined ? [] : disk("modules", files.modules, "0x12")),
    // After the others, which are found by their order; this one is by its serial number.
    ...(files.node === undefined ? [] : disk("node", files.node, "0x15")),
    ...["-device", "virtio-serial-pci,addr=0x13", "-device", "virtio-rng-pci,addr=0x14"],
    ...["-chardev", `socket,id=control,path=${value(files.control)},server=on,wait=off`],
    ...["-device", "virtserialport,chardev=control,name=bifurcate.control"],
    ...layOut(machine.nics).flatMap((port, n) =>
      nicArguments(port, n + 1, isTapped(port), seatOf(port.nic, machine.nics)),
    ),
  ];
}
