// A machine's files for tests: those of a server in good order, of which a test changes some.
import type { Files } from "../doctor/files.js";

/** Text by path; a text that begins with "-> " is a symbolic link, and a path that ends in "/" an empty folder. */
export type FileTree = Readonly<Record<string, string>>;

const LIMITS = "Limit                     Soft Limit           Hard Limit           Units\n";

/** A server where everything is there. */
export const GOOD_MACHINE: FileTree = {
  "/proc/net/protocols": "protocol  size sockets\nXDP       1088      0\nPACKET    1536      2\nUDP   1\n",
  "/proc/meminfo": "HugePages_Total:     512\nHugePages_Free:      256\nHugepagesize:       2048 kB\n",
  "/proc/self/limits": `${LIMITS}Max locked memory         unlimited            unlimited            bytes\n`,
  "/proc/self/mounts": "none /sys/fs/bpf bpf rw 0 0\n",
  "/proc/sys/net/core/bpf_jit_enable": "1\n",
  "/proc/cmdline": "quiet intel_iommu=on iommu=pt\n",
  "/sys/kernel/iommu_groups/0/": "",
  "/sys/kernel/iommu_groups/1/devices/0000:01:00.0": "",
  "/lib/modules/6.18.0/modules.dep":
    "kernel/drivers/vfio/pci/vfio-pci.ko.xz: \nkernel/drivers/uio/uio_pci_generic.ko.xz: \n",
  "/lib/modules/6.18.0/modules.builtin": "kernel/net/xdp/xsk_diag.ko\nkernel/drivers/net/tun.ko\n",
  "/sys/module/vfio_pci/": "",
  "/sys/module/iommufd/": "",
  "/sys/module/netkit/": "",
  "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode": "N\n",
  "/dev/vfio/vfio": "",
  "/dev/iommu": "",
  "/dev/net/tun": "",
  "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x8086\n",
  "/sys/bus/pci/devices/0000:01:00.0/device": "0x159b\n",
  "/sys/bus/pci/devices/0000:01:00.0/iommu_group": "-> ../../../kernel/iommu_groups/1",
  "/sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs": "64\n",
  "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs": "0\n",
};

/** The files of a tree, with changes; null takes a file away, and all below it. */
export function fakeFiles(changes: Readonly<Record<string, string | null>> = {}): Files {
  const tree = new Map(Object.entries(GOOD_MACHINE));
  for (const [path, text] of Object.entries(changes)) {
    for (const each of [...tree.keys()]) {
      if (each === path || each.startsWith(path.endsWith("/") ? path : `${path}/`)) tree.delete(each);
    }
    if (text !== null) tree.set(path, text);
  }
  const below = (path: string): string[] => [...tree.keys()].filter((each) => each.startsWith(`${path}/`));
  return {
    read: (path) => (tree.get(path)?.startsWith("-> ") === true ? null : (tree.get(path) ?? null)),
    list: (path) => [...new Set(below(path).map((each) => each.slice(path.length + 1).split("/")[0]!))],
    exists: (path) => tree.has(path) || below(path).length > 0,
    target: (path) => {
      const text = tree.get(path);
      return text?.startsWith("-> ") === true ? (text.split("/").at(-1) ?? null) : null;
    },
  };
}
