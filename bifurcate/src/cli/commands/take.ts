// `bifurcate take`: a card from its kernel driver to user space, or what the broker is to have.

import { Command } from "commander";
import { BifurcateError } from "@bifurcate/control/errors";
import { MECHANISMS, protectsMemory, type Mechanism } from "@bifurcate/control/card/mechanism";
import { takeCard, type TakenCard } from "@bifurcate/control/card/take";
import {
  handToBroker,
  parseFunctions,
  parseHugepages,
  prepare,
  prepareGround,
  userNumber,
  type BrokerFolders,
} from "../for-broker.js";
import { jsonLine, type Streams } from "../io.js";
import { collect, parseChoice } from "../options.js";

const HELP = `
Examples:
  bifurcate take 0000:01:10.0                         by vfio-pci, behind the IOMMU; bifurcate give 0000:01:10.0 undoes it
  bifurcate take 0000:01:10.0 --via uio_pci_generic --no-memory-protection
  sudo bifurcate take --for-broker                    before bifurcated starts as its own user
  sudo bifurcate take --for-broker --user netbroker
  sudo bifurcate take --for-broker --hugepages 64 --vfs eth0=4
  sudo bifurcate take 0000:01:10.0 --for-broker       a card that the broker is to lease whole

A card that carries the default route, an SSH session or anything else that would end is refused without --force.
Its driver, and its interface's name, addresses, routes and MTU are written down first: give restores them, after a
crash too. docs/direct-access.md has the mechanisms.
`;

interface TakeFlags extends BrokerFolders {
  readonly via: Mechanism;
  readonly force?: true;
  /** commander's word for --no-memory-protection. */
  readonly memoryProtection: boolean;
  readonly forBroker?: true;
  readonly hugepages?: number;
  readonly vfs?: string[];
  readonly json?: true;
}

/** The command. */
export function takeCommand(streams: Streams): Command {
  return new Command("take")
    .description(
      "take a card from the kernel for our own driver; or prepare, as root, what the broker is to have",
    )
    .argument("[ADDRESS]", "where the card sits, as 0000:01:10.0 (lspci -D)")
    .option("--via <MECHANISM>", MECHANISMS.join(", "), parseChoice("--via", MECHANISMS), "vfio")
    .option("--force", "although the default route, an SSH session or somebody else needs the card")
    .option(
      "--no-memory-protection",
      "let the card reach all memory: what every mechanism but vfio and iommufd does",
    )
    .option(
      "--for-broker",
      "the BPF file system and the folders of bifurcated, which runs without root; with ADDRESS: a card for it to lease",
    )
    .option("--user <NAME>", "the broker's user: a name, or a number", "bifurcate")
    .option("--bpf <DIR>", "where to mount the BPF file system", "/run/bifurcate-bpf")
    .option("--run <DIR>", "where the broker's socket and records are", "/run/bifurcate")
    .option("--hugepages <N>", "with --for-broker: have at least that many huge pages", parseHugepages)
    .option("--vfs <DEVICE=N>", "with --for-broker: make virtual functions; may be repeated", collect)
    .option("--json", "one JSON document")
    .addHelpText("after", HELP)
    .action((address: string | undefined, flags: TakeFlags) => {
      const usage = (why: string): BifurcateError =>
        new BifurcateError("E_USAGE", { what: "run bifurcate take", why });
      const forBroker = flags.forBroker === true;
      if (address === undefined && !forBroker) throw usage("the card's address is missing");
      const { hugepages = null, vfs = [] } = flags;
      const functions = vfs.map(parseFunctions);
      if (address === undefined) {
        for (const line of prepare(flags)) streams.out(`${line}\n`);
        for (const line of prepareGround({ hugepages, functions })) streams.out(`${line}\n`);
        return;
      }
      if (hugepages !== null || functions.length > 0) {
        throw usage("--hugepages and --vfs are for --for-broker without a card");
      }
      const { via, force = false, memoryProtection, json = false } = flags;
      if (forBroker && !protectsMemory(via)) {
        throw usage(`--for-broker takes cards behind an IOMMU only, and ${via} has no memory protection`);
      }
      // Before the card is taken: it would be taken for nobody.
      const uid = forBroker ? userNumber(flags.user) : null;
      const taken = takeCard({ address, via, force, noMemoryProtection: !memoryProtection });
      const given = uid === null ? [] : handToBroker(taken.address, uid);
      streams.out(json ? jsonLine({ taken }) : takenWords(taken));
      if (!json) for (const line of given) streams.out(`  ${line}\n`);
      if (!json) for (const reason of taken.overruled) streams.err(`warning: ${reason}\n`);
    });
}

function takenWords({ address, via, driver, from, supported }: TakenCard): string {
  const gone =
    from.interfaces.length === 0 ? "" : `, and ${from.interfaces.join(", ")} is gone from the kernel`;
  return [
    `${address}: taken from ${from.driver ?? "no driver"} by ${driver}${gone}`,
    supported === null
      ? "  no driver here knows it; another program may"
      : `  our driver: ${supported}; open it as pci:${address},via=${via}`,
    `  bifurcate give ${address} gives it back`,
    "",
  ].join("\n");
}
