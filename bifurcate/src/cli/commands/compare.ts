// `bifurcate compare [DEV]`: every mechanism by seven criteria, from what is known, what this machine says, and measurements.

import { availableParallelism, loadavg } from "node:os";
import { Command } from "commander";
import {
  BifurcateError,
  compare,
  findLink,
  machineFiles,
  nativeKernel,
  openNetns,
  readCard,
  readMachine,
  stateDirectory,
  type Card,
  type Comparison,
  type Kernel,
  type Netns,
} from "@bifurcate/control";
import { labDown, labUp } from "@bifurcate/lab";
import { inUse, measureAll, wireEnd } from "../../compare/measure-all.js";
import { jsonLine, type Streams } from "../io.js";
import { whole } from "../options.js";
import { renderHtml } from "../render/comparison/html.js";
import { renderMarkdown } from "../render/comparison/markdown.js";
import { renderText } from "../render/comparison/text.js";
import { reportTo } from "../report.js";
import { Stop } from "../stop.js";

const HELP = `
Examples:
  bifurcate compare                                      what is known, and what this machine has of it
  bifurcate compare eth0
  bifurcate compare --run --html --output compare.html   measured in a lab that it makes and removes
  bifurcate compare eth1 --run --peer eth2 --markdown    measured on two spare cards, joined by a cable

A card that the kernel uses is measured on only with --force. Nothing is left behind.
`;

interface CompareFlags {
  readonly netns?: string;
  readonly run?: true;
  readonly peer?: string;
  readonly peerNetns?: string;
  readonly seconds: string;
  readonly force?: true;
  readonly json?: true;
  readonly markdown?: true;
  readonly html?: true;
  readonly output?: string;
}

/** The command. */
export function compareCommand(streams: Streams): Command {
  return new Command("compare")
    .description("compare every way that packets can take to user space, on this machine")
    .argument("[DEV]", "the card; with --run the lab's when left out, else the only one that is up")
    .option("--netns <NAME>", "the card is in this network namespace (a name or a path)")
    .option("--run", "measure what can run here")
    .option("--peer <DEV>", "with --run on a card: the interface at the other end of its wire")
    .option("--peer-netns <NAME>", "where that is")
    .option("--seconds <N>", "with --run: how long each of a mechanism's four phases is", "2")
    .option("--force", "measure on a card that the kernel uses")
    .option("--output <FILE>", "write the report to a file")
    .option("--json", "one JSON document")
    .option("--markdown", "a page of Markdown")
    .option("--html", "a page that stands alone, with plots")
    .addHelpText("after", HELP)
    .action(async (ifname: string | undefined, flags: CompareFlags) => {
      const render = renderer(flags);
      const seconds = whole("--seconds", flags.seconds, 1, 60);
      checkFlags(ifname, flags);
      const write = reportTo(streams, flags.output);
      const stop = new Stop();
      try {
        const { run, signal } = { run: flags.run === true, signal: stop.signal };
        const progress = (text: string): void => streams.err(`${text}\n`);
        const made =
          run && ifname === undefined
            ? await inLab(seconds, signal, progress)
            : await onCard(ifname ?? null, flags, seconds, signal, progress);
        write(render(made));
      } finally {
        stop.dispose();
      }
    });
}

function renderer(flags: CompareFlags): (comparison: Comparison) => string {
  const forms = [
    ...(flags.json === true ? [{ name: "--json", render: jsonLine }] : []),
    ...(flags.markdown === true ? [{ name: "--markdown", render: renderMarkdown }] : []),
    ...(flags.html === true ? [{ name: "--html", render: renderHtml }] : []),
  ];
  if (forms.length > 1) {
    throw new BifurcateError("E_USAGE", {
      what: "choose the form of the report",
      why: `${forms.map(({ name }) => name).join(" and ")} exclude each other`,
      next: "Give one of them, or none for plain text.",
    });
  }
  return forms[0]?.render ?? renderText;
}

function checkFlags(ifname: string | undefined, flags: CompareFlags): void {
  const what = "compare the mechanisms";
  if (flags.run !== true && (flags.peer !== undefined || flags.force === true)) {
    throw new BifurcateError("E_USAGE", {
      what,
      why: "--peer and --force are for measuring",
      next: "Add --run.",
    });
  }
  if (flags.run !== true) return;
  if (ifname === undefined && (flags.netns ?? flags.peer) !== undefined) {
    throw new BifurcateError("E_USAGE", {
      what,
      why: "--netns and --peer belong to a card, and none was named",
      next: "Name the card, or leave them out: the measurement then makes a lab of its own.",
    });
  }
  if (ifname !== undefined && flags.peer === undefined) {
    throw new BifurcateError("E_USAGE", {
      what: `measure on ${ifname}`,
      why: "the packets have to come from the other end of its wire",
      next: "Name it with --peer DEV (and --peer-netns), or leave the card out to measure in a lab.",
    });
  }
}

/** Measures on a veth card of one queue that it makes and removes. */
async function inLab(
  seconds: number,
  signal: AbortSignal,
  progress: (text: string) => void,
): Promise<Comparison> {
  const name = `c${process.pid % 10_000_000}`;
  progress("making a lab of two namespaces");
  // One queue, which flow and kernel share: the hardest case for the kernel's traffic.
  const lab = await labUp({ name, queues: 1, signal });
  try {
    const [card] = lab.cards;
    const flags = {
      netns: card!.netns,
      run: true,
      peer: card!.peer.ifname,
      peerNetns: card!.peer.netns,
    } as const;
    const command = `bifurcate compare --run --seconds ${seconds}`;
    return await onCard(card!.ifname, { ...flags, force: true, command }, seconds, signal, progress);
  } finally {
    await labDown(name);
  }
}

/** Looks at a card, and measures on it where that was asked for. */
async function onCard(
  ifname: string | null,
  flags: Pick<CompareFlags, "netns" | "run" | "peer" | "peerNetns" | "force"> & { readonly command?: string },
  seconds: number,
  signal: AbortSignal,
  progress: (text: string) => void,
): Promise<Comparison> {
  const kernel = nativeKernel();
  const netns = openNetns(kernel, flags.netns ?? null);
  try {
    const machine = readMachine(kernel, machineFiles);
    const name = ifname ?? onlyCard(netns);
    const card = name === null ? null : readCard(kernel, netns, machineFiles, name, stateDirectory());
    const busy = { processors: availableParallelism(), load: loadavg()[0] ?? 0 };
    const asked = { machine, virtual: isVirtual(), ...busy, card, now: new Date() };
    if (flags.run !== true || card === null) {
      return compare({ ...asked, outcomes: new Map(), measuredOn: null });
    }
    refuseUsed(card, flags.force === true);
    const { link, driver } = card.facts;
    const wire = {
      card: wireEnd(netns, flags.netns ?? null, link.name),
      peer: peerEnd(kernel, flags.peer!, flags.peerNetns ?? flags.netns ?? null),
    };
    const command =
      flags.command ?? `bifurcate compare ${link.name} --run --peer ${flags.peer} --seconds ${seconds}`;
    const outcomes = await measureAll({ machine, card, netns, wire, seconds, command, signal, progress });
    const where = flags.command === undefined ? "the card" : "a lab of two namespaces, the card";
    const measuredOn = `${where} ${link.name} (${driver.driver}, ${card.queues} ${card.queues === 1 ? "queue" : "queues"}), ${seconds} s a phase`;
    return compare({ ...asked, outcomes, measuredOn });
  } finally {
    netns.close();
  }
}

/** Without a name: the card that is up, where there is one and no other. */
function onlyCard(netns: Netns): string | null {
  const cards = netns.links().filter((link) => link.up && !link.loopback && link.ethernet);
  return cards.length === 1 ? cards[0]!.name : null;
}

function refuseUsed(card: Card, force: boolean): void {
  const why = inUse(card);
  if (why === null || force) return;
  throw new BifurcateError("E_CARD_IN_USE", { what: `measure on ${card.facts.link.name}`, why });
}

function peerEnd(kernel: Kernel, ifname: string, name: string | null): ReturnType<typeof wireEnd> {
  const netns = openNetns(kernel, name);
  try {
    findLink(netns.links(), ifname);
    return wireEnd(netns, name, ifname);
  } finally {
    netns.close();
  }
}

/** The processor tells a guest that it is one: CPUID leaf 1, ECX bit 31, which Linux shows as a flag. */
function isVirtual(): boolean {
  return /^flags\b.*\bhypervisor\b/m.test(machineFiles.read("/proc/cpuinfo") ?? "");
}
