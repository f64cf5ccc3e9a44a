// `bifurcate lab guest` and `lab fetch`: boots a guest with real NIC drivers and runs a command in it, or a shell.

import { Argument, Command, Option } from "commander";
import { fetchGuests, pruneGuests } from "@bifurcate/lab/guest/fetch";
import { runInGuest } from "@bifurcate/lab/guest/session";
import {
  DEFAULT_MACHINE,
  IOMMUS,
  KERNELS,
  parseNics,
  withVhostUser,
  type Machine,
} from "@bifurcate/lab/guest/machine";
import { CommandStatus, type Streams } from "../io.js";
import { collect, whole } from "../options.js";
import { endByHangUp, Stop } from "../stop.js";

const HELP = `
Examples:
  bifurcate lab guest                                            a shell in it
  bifurcate lab guest --nics igb,igb -- bifurcate devices --json
  bifurcate lab guest --nics virtio:4 --kernel stock -- ip -br link
  bifurcate lab guest --nics igb --iommu none -- sh -c 'echo 2 > /sys/class/net/nic0/device/sriov_numvfs; lspci'

NICs are igb, e1000e, virtio and vmxnet3; virtio:N has N queue pairs (as root). They are named nic0, nic1 and so on.
Two of a kind that stand side by side are wired to each other; the far end of any other nicN is a virtio card farN.
Nothing has an address and everything is down.

QEMU emulates everything in software: no KVM, no hardware. The first use fetches what it needs from Debian and builds
the lab's kernel (once, into the user's cache); afterwards it works offline. What the guest writes is thrown away.
`;

interface GuestFlags {
  readonly nics: string;
  readonly iommu: Machine["iommu"];
  readonly kernel: Machine["kernel"];
  readonly memory: string;
  readonly cpus: string;
  readonly vhostUser?: readonly string[];
}

/** The machine that the options describe. */
export function machineOf(flags: GuestFlags): Machine {
  return {
    nics: withVhostUser(parseNics(flags.nics), flags.vhostUser ?? []),
    iommu: flags.iommu,
    kernel: flags.kernel,
    memory: whole("--memory", flags.memory, 512, 65536),
    cpus: whole("--cpus", flags.cpus, 1, 16),
  };
}

/** `bifurcate lab fetch`: what guests need, ahead of use. */
export function labFetchCommand(streams: Streams): Command {
  return new Command("fetch")
    .description("fetch and build what guests need, so that they boot offline")
    .addArgument(new Argument("[KERNEL...]", "all of them when none is named").choices(KERNELS))
    .option("--prune", "then remove what other versions of bifurcate left in the cache")
    .action(async (kernels: Machine["kernel"][], flags: { readonly prune?: true }) => {
      const say = (text: string): void => streams.err(`${text}\n`);
      await fetchGuests(kernels, say);
      if (flags.prune === true) await pruneGuests(say);
    });
}

/** The command; it ends with the status of what ran in the guest. */
export function labGuestCommand(streams: Streams): Command {
  return new Command("guest")
    .description("boot a guest with real NIC drivers and an IOMMU, and run a command in it, or a shell")
    .argument("[COMMAND...]", "what to run in the guest, after --")
    .option("--nics <LIST>", "NICs of the guest, e.g. igb,igb,virtio:4", "none")
    .addOption(new Option("--iommu <KIND>", "its IOMMU").choices(IOMMUS).default(DEFAULT_MACHINE.iommu))
    .addOption(new Option("--kernel <KERNEL>", "its kernel").choices(KERNELS).default(DEFAULT_MACHINE.kernel))
    .option("--memory <MIB>", "its memory", String(DEFAULT_MACHINE.memory))
    .option("--cpus <N>", "its processors", String(DEFAULT_MACHINE.cpus))
    .option(
      "--vhost-user <SOCKET>",
      "one more virtio NIC, served by the program of the host that listens there (repeatable)",
      collect,
    )
    .addHelpText("after", HELP)
    .action(async (command: string[], flags: GuestFlags) => {
      const stops: Stop[] = [];
      const status = await runInGuest(machineOf(flags), command, {
        say: (text) => streams.err(`${text}\n`),
        stop: () => {
          stops.push(new Stop());
          return stops.at(-1)!;
        },
      });
      if (stops.at(-1)?.reason === "SIGHUP") endByHangUp();
      if (status !== 0) throw new CommandStatus(status);
    });
}
