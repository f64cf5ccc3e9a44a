// What is wrong with a machine, whatever the card.
import type { BifurcateError } from "../errors.js";
import { missingCapabilities } from "../prepare.js";
import { finding, type Finding } from "./finding.js";
import type { Machine } from "./machine.js";

/** Bytes of the frame pool that a split registers for each queue: 4096 frames of 2048 bytes. */
export const POOL_BYTES_A_QUEUE = 4096 * 2048;
const MIB = 1024 * 1024;

/**
 * @param queues The most receive queues that a card of this machine has: a split takes a part of the pool for each.
 * @param journals What could not be read of the journals.
 */
export function machineFindings(
  machine: Machine,
  queues: number,
  journals: readonly BifurcateError[],
): Finding[] {
  const found: Finding[] = [];
  const add = (name: Parameters<typeof finding>[0], says: string, mend: string): void => {
    found.push(finding(name, "machine", says, mend));
  };
  const missing = missingCapabilities("af_xdp", machine.capabilities);
  if (missing.length > 0) {
    add(
      "capability-missing",
      `this process lacks ${missing.join(", ")}, which a split needs`,
      `sudo setcap ${missing.map((each) => each.toLowerCase()).join(",")}+ep "$(readlink -f "$(command -v node)")"`,
    );
  }
  if (machine.afXdp === "absent") {
    const why = "the kernel was built without AF_XDP sockets: a split goes through AF_PACKET, which copies";
    add("no-af-xdp", why, "use a kernel with CONFIG_XDP_SOCKETS=y (Debian's have it)");
  }
  const pool = queues * POOL_BYTES_A_QUEUE;
  if (machine.memlock !== null && machine.memlock < pool && !machine.capabilities.includes("CAP_IPC_LOCK")) {
    add(
      "memlock-too-small",
      `this process may lock ${Math.floor(machine.memlock / MIB)} MiB and has no CAP_IPC_LOCK; a frame pool for ` +
        `${queues} queue${queues === 1 ? "" : "s"} has ${pool / MIB} MiB`,
      `sudo prlimit --pid $$ --memlock=unlimited`,
    );
  }
  const { total, free, size } = machine.hugepages;
  const wanted = Math.ceil(pool / Math.max(size, 2 * MIB));
  if (total === 0) {
    const why =
      "there are no huge pages: frame pools stand in ordinary ones, which costs some TLB misses a packet";
    add("no-hugepages", why, `sudo sysctl -w vm.nr_hugepages=${wanted}`);
  } else if (free === 0) {
    const why = `all ${total} huge pages are in use: the next frame pool stands in ordinary ones`;
    add("hugepages-used-up", why, `sudo sysctl -w vm.nr_hugepages=${total + wanted}`);
  }
  if (!machine.bpffs) {
    const why = "no BPF file system is mounted: a program or map cannot outlive the process that made it";
    add("no-bpffs", why, "sudo mount -t bpf bpf /sys/fs/bpf");
  }
  if (machine.bpfJit === false) {
    const why = "BPF programs are interpreted: each frame's filter takes several times as long";
    add("bpf-jit-off", why, "sudo sysctl -w net.core.bpf_jit_enable=1");
  }
  if (machine.iommu.groups === 0) {
    const said =
      machine.iommu.commandLine === "" ? "" : ` (its command line says ${machine.iommu.commandLine})`;
    add(
      "no-iommu",
      `the kernel uses no IOMMU${said}: a card given to a process could write into any memory`,
      "switch VT-d or AMD-Vi on in the firmware, and add intel_iommu=on (Intel) to the kernel's command line",
    );
  }
  const { xsk_diag } = machine.modules;
  if (xsk_diag !== "there" && machine.afXdp !== "absent") {
    const why =
      "the kernel lists no AF_XDP sockets: `explain` sees those of processes that it may trace only";
    const mend =
      xsk_diag === "module"
        ? "sudo modprobe xsk_diag"
        : "use a kernel with CONFIG_XDP_SOCKETS_DIAG, if you miss it";
    add("no-xsk-diag", why, mend);
  }
  for (const name of machine.comparisonsLeft) {
    const why =
      `the process of a comparison is gone and its namespace ${name} is left, with the card in it that was the far end of ` +
      "its wire; a card that it had taken is taken still (`bifurcate give ADDRESS`)";
    add("comparison-left", why, `sudo ip netns del ${name}`);
  }
  for (const error of journals) {
    add("journal-unreadable", `${error.what}: ${error.why}`, "bifurcate release --stale");
  }
  return found;
}
