// `bifurcate compare [DEV]`: every mechanism by seven criteria, from what is known, what this machine says, and measurements.

import { availableParallelism, loadavg } from "node:os";
import { Command } from "commander";
import { compare, type Comparison } from "@bifurcate/control/compare/compare";
import { KNOWN } from "@bifurcate/control/compare/known/index";
import { readCard } from "@bifurcate/control/doctor/card";
import { machineFiles } from "@bifurcate/control/doctor/files";
import { readMachine } from "@bifurcate/control/doctor/machine";
import { BifurcateError } from "@bifurcate/control/errors";
import { findLink } from "@bifurcate/control/facts/facts";
import type { Kernel, Netns } from "@bifurcate/control/kernel";
import { nativeKernel } from "@bifurcate/control/native";
import { openNetns } from "@bifurcate/control/prepare";
import { stateDirectory } from "@bifurcate/control/transaction/journal";
import { labDown, labUp } from "@bifurcate/lab/network";
import { inUse, measureAll, wireEnd } from "../../compare/measure-all.js";
import type { Pace } from "../../compare/phases.js";
import { withPeerAway, withSpareWires } from "../../compare/spare.js";
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
  bifurcate compare --run --html --output compare.html   measured on spare cards, or in a lab that it makes and removes
  bifurcate compare eth1 --run --peer eth2 --markdown    measured on two spare cards, joined by a cable

Spare cards are those on the PCI bus that the kernel has no use for; which of them are wired to each other is found out.
They are taken from their kernel drivers for mechanisms that need that, and given back. A card that the kernel uses is
measured on only with --force, and is never taken. Nothing is left behind.
`;

/** Packets a second while times are taken: what the slowest mechanism takes on a slow machine. */
const DEFAULT_RATE = 10_000;

interface CompareFlags {
  readonly netns?: string;
  readonly run?: true;
  readonly peer?: string;
  readonly peerNetns?: string;
  readonly seconds: string;
  readonly rate: string;
  readonly force?: true;
  readonly memoryProtection: boolean;
  readonly only?: string[];
  readonly json?: true;
  readonly markdown?: true;
  readonly html?: true;
  readonly output?: string;
}

/** The command. */
export function compareCommand(streams: Streams): Command {
  return new Command("compare")
    .description("compare every way that packets can take to user space, on this machine")
    .argument("[DEV]", "the card; left out: with --run spare cards or a lab, else the only one that is up")
    .option("--netns <NAME>", "the card is in this network namespace (a name or a path)")
    .option("--run", "measure what can run here")
    .option("--peer <DEV>", "with --run on a card: the interface at the other end of its wire")
    .option("--peer-netns <NAME>", "where that is")
    .option("--seconds <N>", "with --run: how long each of a mechanism's four phases is", "2")
    .option("--rate <N>", "with --run: packets a second while times are taken", String(DEFAULT_RATE))
    .option("--force", "measure on a card that the kernel uses")
    .option(
      "--no-memory-protection",
      "with --run: measure also mechanisms by which a card can reach all memory",
    )
    .option("--only <MECHANISM...>", "these mechanisms alone")
    .option("--output <FILE>", "write the report to a file")
    .option("--json", "one JSON document")
    .option("--markdown", "a page of Markdown")
    .option("--html", "a page that stands alone, with plots")
    .addHelpText("after", HELP)
    .action(async (ifname: string | undefined, flags: CompareFlags) => {
      const render = renderer(flags);
      const seconds = whole("--seconds", flags.seconds, 1, 60);
      const rate = whole("--rate", flags.rate, 1, 1_000_000);
      checkFlags(ifname, flags);
      const write = reportTo(streams, flags.output);
      const stop = new Stop();
      try {
        const task: Task = {
          pace: { seconds, rate },
          signal: stop.signal,
          progress: (text) => streams.err(`${text}\n`),
          flags,
          only: flags.only,
        };
        const made =
          flags.run === true && ifname === undefined
            ? await onSpareCards(task)
            : [await onCard({ ifname: ifname ?? null, ...flags }, task)];
        write(render(made));
      } finally {
        stop.dispose();
      }
    });
}

/** What is common to all cards of a comparison. */
interface Task {
  readonly pace: Pace;
  readonly signal: AbortSignal;
  readonly progress: (text: string) => void;
  readonly flags: Pick<CompareFlags, "run" | "force" | "memoryProtection">;
  readonly only: readonly string[] | undefined;
}

/** Where the card is, and its peer. */
interface Place extends Pick<CompareFlags, "netns" | "peer" | "peerNetns"> {
  readonly ifname: string | null;
  /** What a reader types to have the same, where that is not the card's name. */
  readonly command?: string;
  /** Where that is, in words. */
  readonly where?: string;
  /** A card that is measured before it. */
  readonly beside?: string;
  /** It is nobody's but the measurement's. */
  readonly ours?: true;
}

function renderer(flags: CompareFlags): (comparisons: readonly Comparison[]) => string {
  const forms = [
    ...(flags.json === true
      ? [{ name: "--json", render: (comparisons: readonly Comparison[]) => jsonLine({ comparisons }) }]
      : []),
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
  checkOnly(flags.only);
  const what = "compare the mechanisms";
  if (flags.run !== true && (flags.peer !== undefined || flags.force === true || !flags.memoryProtection)) {
    throw new BifurcateError("E_USAGE", {
      what,
      why: "--peer, --force and --no-memory-protection are for measuring",
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
      next: "Name it with --peer DEV (and --peer-netns), or leave the card out to measure on spare cards, or in a lab.",
    });
  }
}

/** Checks the names of --only. @throws E_BAD_OPTION */
function checkOnly(only: readonly string[] | undefined): void {
  const unknown = only?.find((name) => !(name in KNOWN));
  if (unknown === undefined) return;
  throw new BifurcateError("E_BAD_OPTION", {
    what: `compare ${unknown}`,
    why: "there is no such mechanism",
    next: `Name one of: ${Object.keys(KNOWN).join(", ")}.`,
  });
}

/** The command that a reader types to have the same. */
function commandOf({ pace, flags, only }: Task): string {
  const words = [
    ...(pace.rate === DEFAULT_RATE ? [] : [`--rate ${pace.rate}`]),
    ...(flags.memoryProtection ? [] : ["--no-memory-protection"]),
    ...(only === undefined ? [] : ["--only", ...only.map((name) => `'${name}'`)]),
  ];
  return ["bifurcate compare --run", `--seconds ${pace.seconds}`, ...words].join(" ");
}

/** Measures on all spare cards that are wired to each other, else in a lab. */
async function onSpareCards(task: Task): Promise<Comparison[]> {
  const { signal, progress } = task;
  const kernel = nativeKernel();
  const netns = openNetns(kernel, null);
  try {
    const measured = await withSpareWires(kernel, netns, signal, async (wires) => {
      const made: Comparison[] = [];
      for (const wire of wires) {
        progress(`spare: ${wire.card}, wired to ${wire.peer}`);
        const place = {
          ifname: wire.card,
          peer: wire.peer,
          command: commandOf(task),
          where: "the spare card",
          ...(made[0]?.card == null ? {} : { beside: made[0].card.name }),
        };
        made.push(await withPeerAway(netns, wire, (peerNetns) => onCard({ ...place, peerNetns }, task)));
      }
      return made;
    });
    return measured ?? [await inLab(task)];
  } finally {
    netns.close();
  }
}

/** Measures on a veth card of one queue that it makes and removes. */
async function inLab(task: Task): Promise<Comparison> {
  const name = `c${process.pid % 10_000_000}`;
  task.progress("making a lab of two namespaces");
  // One queue, which flow and kernel share: the hardest case for the kernel's traffic.
  const lab = await labUp({ name, queues: 1, signal: task.signal });
  try {
    const [card] = lab.cards;
    const place = {
      ifname: card!.ifname,
      netns: card!.netns,
      peer: card!.peer.ifname,
      peerNetns: card!.peer.netns,
      command: commandOf(task),
      where: "a lab of two namespaces, the card",
      ours: true,
    } as const;
    return await onCard(place, task);
  } finally {
    await labDown(name);
  }
}

/** Looks at a card, and measures on it where that was asked for. */
async function onCard(place: Place, task: Task): Promise<Comparison> {
  const { ifname, netns: inside = null, peer, peerNetns = inside, beside = null } = place;
  const { pace, signal, progress, flags } = task;
  const kernel = nativeKernel();
  const netns = openNetns(kernel, inside);
  const only = task.only === undefined ? {} : { only: task.only };
  try {
    const machine = readMachine(kernel, machineFiles);
    const name = ifname ?? onlyCard(netns);
    const card = name === null ? null : readCard(kernel, netns, machineFiles, name, stateDirectory());
    const busy = { processors: availableParallelism(), load: loadavg()[0] ?? 0, clock: clockRate() };
    const asked = { machine, virtual: isVirtual(), ...busy, card, now: new Date(), ...only };
    if (flags.run !== true || card === null) {
      return compare({ ...asked, outcomes: new Map(), measuredOn: null });
    }
    const used = inUse(card);
    if (used !== null && flags.force !== true && place.ours !== true) {
      throw new BifurcateError("E_CARD_IN_USE", { what: `measure on ${card.facts.link.name}`, why: used });
    }
    const { link, driver } = card.facts;
    const wire = {
      card: wireEnd(netns, inside, link.name),
      peer: peerEnd(kernel, peer!, peerNetns),
    };
    const keep =
      used !== null
        ? `the kernel uses it: ${used}`
        : inside !== null
          ? `it is in the namespace ${inside}`
          : null;
    const command =
      place.command ?? `bifurcate compare ${link.name} --run --peer ${peer} --seconds ${pace.seconds}`;
    const outcomes = await measureAll({
      ...{ machine, card, netns, wire, pace, command, signal, progress, beside, ...only },
      leave: { keep, unprotected: !flags.memoryProtection },
    });
    const measuredOn = `${place.where ?? "the card"} ${link.name} (${driver.driver}, ${card.queues} ${card.queues === 1 ? "queue" : "queues"}), ${pace.seconds} s a phase`;
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

function peerEnd(kernel: Kernel, ifname: string, name: string | null): ReturnType<typeof wireEnd> {
  const netns = openNetns(kernel, name);
  try {
    findLink(netns.links(), ifname);
    return wireEnd(netns, name, ifname);
  } finally {
    netns.close();
  }
}

/** "cpu MHz : 2100.000" of proc_cpuinfo(5): of the first processor, in MHz. */
function clockRate(): number | null {
  const told = /^cpu MHz\s*:\s*([\d.]+)/m.exec(machineFiles.read("/proc/cpuinfo") ?? "")?.[1];
  return told === undefined ? null : Number(told);
}

/** The processor tells a guest that it is one: CPUID leaf 1, ECX bit 31, which Linux shows as a flag. */
function isVirtual(): boolean {
  return /^flags\b.*\bhypervisor\b/m.test(machineFiles.read("/proc/cpuinfo") ?? "");
}
