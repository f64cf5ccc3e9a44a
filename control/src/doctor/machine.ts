// The facts about a machine that mechanisms ask for, whatever the card: kernel, rights, memory, IOMMU, modules, devices.
import type { Kernel } from "../kernel.js";
import type { Files } from "./files.js";

/** Whether a part of the kernel is there. "unknown" where neither the running kernel nor its configuration tells. */
export type Presence = "there" | "module" | "absent" | "unknown";

/** The facts about a machine. */
export interface Machine {
  /** uname -r. */
  readonly kernel: string;
  /** Effective capabilities of this process. */
  readonly capabilities: readonly string[];
  /** RLIMIT_MEMLOCK in bytes; Infinity where there is no limit, null where it cannot be read. */
  readonly memlock: number | null;
  /** Huge pages of the default size. */
  readonly hugepages: { readonly size: number; readonly total: number; readonly free: number };
  /** AF_XDP and AF_PACKET sockets can be made. */
  readonly afXdp: Presence;
  readonly afPacket: Presence;
  /** A BPF file system is mounted at /sys/fs/bpf. */
  readonly bpffs: boolean;
  /** net.core.bpf_jit_enable; null where there is no such setting (always on). */
  readonly bpfJit: boolean | null;
  readonly iommu: {
    /** Groups that the kernel has made; 0 where no IOMMU is at work. */
    readonly groups: number;
    /** What the kernel's command line says of it, e.g. "intel_iommu=on iommu=pt". */
    readonly commandLine: string;
  };
  /** Parts of the kernel by the name of their module. */
  readonly modules: Readonly<Record<ModuleName, Presence>>;
  /** Files in /dev that mechanisms open. */
  readonly devices: {
    readonly vfio: boolean;
    readonly iommufd: boolean;
    readonly tun: boolean;
    readonly vhostNet: boolean;
  };
  /** vfio may hand out cards without an IOMMU (enable_unsafe_noiommu_mode); null where vfio has no such mode. */
  readonly noIommuMode: boolean | null;
  /** RDMA devices, and the interface that the first port of each stands on; null where it stands on none. */
  readonly rdma: readonly { readonly name: string; readonly ifname: string | null }[];
  /** rdma-core's library is installed. */
  readonly libibverbs: boolean;
  /** Namespaces of comparisons whose process is gone: each may hold the far end of a wire. */
  readonly comparisonsLeft: readonly string[];
}

/** What `compare` names the namespace for the far end of a wire, by its process. */
export function comparisonNetns(pid: number): string {
  return `bifurcate-compare-${pid}`;
}

/** Modules that a mechanism may ask for. */
export const MODULES = [
  "vfio-pci",
  "uio_pci_generic",
  "igb_uio",
  "tun",
  "vhost_net",
  "xsk_diag",
  "ib_uverbs",
  "iommufd",
  "netkit",
] as const;

/** The name of such a module. */
export type ModuleName = (typeof MODULES)[number];

/** Kernel options by the module they make, where that name does not tell. */
const OPTIONS: Readonly<Record<ModuleName, string>> = {
  "vfio-pci": "CONFIG_VFIO_PCI",
  uio_pci_generic: "CONFIG_UIO_PCI_GENERIC",
  igb_uio: "",
  tun: "CONFIG_TUN",
  vhost_net: "CONFIG_VHOST_NET",
  xsk_diag: "CONFIG_XDP_SOCKETS_DIAG",
  ib_uverbs: "CONFIG_INFINIBAND_USER_ACCESS",
  iommufd: "CONFIG_IOMMUFD",
  netkit: "CONFIG_NETKIT",
};

/** Documentation/ABI/stable/sysfs-class-infiniband; a device of RoCE has an interface a place of its table of GIDs. */
const RDMA = "/sys/class/infiniband";

const LIBRARIES = ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/** Reads the facts about the machine. */
export function readMachine(kernel: Pick<Kernel, "capabilities" | "release">, files: Files): Machine {
  const release = kernel.release();
  const options = configuration(files, release);
  const protocols = files.read("/proc/net/protocols");
  const socket = (protocol: string, option: string): Presence => {
    if (protocols !== null && new RegExp(`^${protocol}\\s`, "m").test(protocols)) return "there";
    return options === null ? (protocols === null ? "unknown" : "absent") : built(options, option);
  };
  const memory = files.read("/proc/meminfo") ?? "";
  const meminfo = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(memory)?.[1] ?? 0);
  const jit = files.read("/proc/sys/net/core/bpf_jit_enable");
  const noIommu = files.read("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
  return {
    kernel: release,
    capabilities: kernel.capabilities(),
    memlock: memlock(files.read("/proc/self/limits")),
    hugepages: {
      size: meminfo("Hugepagesize") * 1024,
      total: meminfo("HugePages_Total"),
      free: meminfo("HugePages_Free"),
    },
    afXdp: socket("XDP", "CONFIG_XDP_SOCKETS"),
    afPacket: socket("PACKET", "CONFIG_PACKET"),
    bpffs: / \/sys\/fs\/bpf bpf /.test(files.read("/proc/self/mounts") ?? ""),
    bpfJit: jit === null ? null : jit.trim() !== "0",
    iommu: {
      groups: files.list("/sys/kernel/iommu_groups").length,
      commandLine: (files.read("/proc/cmdline") ?? "")
        .split(/\s+/)
        .filter((word) => /^(intel_iommu|amd_iommu|iommu)(=|$)/.test(word))
        .join(" "),
    },
    modules: Object.fromEntries(
      MODULES.map((name) => [name, presence(files, release, options, name)]),
    ) as Record<ModuleName, Presence>,
    devices: {
      vfio: files.exists("/dev/vfio/vfio"),
      iommufd: files.exists("/dev/iommu"),
      tun: files.exists("/dev/net/tun"),
      vhostNet: files.exists("/dev/vhost-net"),
    },
    noIommuMode: noIommu === null ? null : /^[Y1]/.test(noIommu),
    rdma: files.list(RDMA).map((name) => ({
      name,
      ifname: files.read(`${RDMA}/${name}/ports/1/gid_attrs/ndevs/0`)?.trim() || null,
    })),
    libibverbs: LIBRARIES.some((folder) => files.exists(`${folder}/libibverbs.so.1`)),
    comparisonsLeft: comparisonsLeft(files),
  };
}

/** Named namespaces stand in /run/netns (ip-netns(8)). */
function comparisonsLeft(files: Files): string[] {
  return files.list("/run/netns").filter((name) => {
    const pid = Number(/-(\d+)$/.exec(name)?.[1]);
    return name === comparisonNetns(pid) && !files.exists(`/proc/${pid}/stat`);
  });
}

/** "Max locked memory  8388608  8388608  bytes" of proc_pid_limits(5): the soft limit. */
function memlock(limits: string | null): number | null {
  const soft = /^Max locked memory\s+(\S+)/m.exec(limits ?? "")?.[1];
  if (soft === undefined) return null;
  return soft === "unlimited" ? Infinity : Number(soft);
}

/** The options that the running kernel was built with: CONFIG_X=y and =m; null where they are nowhere to read. */
function configuration(files: Files, release: string): ReadonlyMap<string, string> | null {
  const text = files.read("/proc/config.gz") ?? files.read(`/boot/config-${release}`);
  if (text === null) return null;
  return new Map([...text.matchAll(/^(CONFIG_\w+)=(\S+)/gm)].map((match) => [match[1]!, match[2]!]));
}

function built(options: ReadonlyMap<string, string>, option: string): Presence {
  const value = options.get(option);
  return value === "y" ? "there" : value === "m" ? "module" : "absent";
}

/** A module is loaded, built in, waits in /lib/modules, or is not there. */
function presence(
  files: Files,
  release: string,
  options: ReadonlyMap<string, string> | null,
  name: ModuleName,
): Presence {
  // The file is named with dashes or underscores, the folder in /sys with underscores always.
  if (files.exists(`/sys/module/${name.replaceAll("-", "_")}`)) return "there";
  const file = new RegExp(`/${name.replaceAll(/[-_]/g, "[-_]")}\\.ko`);
  const folder = `/lib/modules/${release}`;
  if (file.test(files.read(`${folder}/modules.builtin`) ?? "")) return "there";
  const dependencies = files.read(`${folder}/modules.dep`);
  if (dependencies !== null && file.test(dependencies)) return "module";
  // A part that is built in and has no parameters shows nowhere but in the configuration.
  if (options !== null && OPTIONS[name] !== "" && built(options, OPTIONS[name]) === "there") return "there";
  return dependencies === null && options === null ? "unknown" : "absent";
}
