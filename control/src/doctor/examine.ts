// The examination: reads the facts about the machine and its cards, and says what is found. Changes nothing.
import { messageOf } from "../errors.js";
import { findLink } from "../facts/facts.js";
import type { Kernel, Netns } from "../kernel.js";
import { stateDirectory } from "../transaction/journal.js";
import { listSplits } from "../transaction/registry.js";
import { readCard, type Card } from "./card.js";
import { cardFindings } from "./card-findings.js";
import type { Files } from "./files.js";
import { finding, type Finding } from "./finding.js";
import { readMachine, type Machine } from "./machine.js";
import { machineFindings } from "./machine-findings.js";
import { probeMechanisms, type MechanismState } from "./mechanisms/index.js";

/** What was found. */
export interface Examination {
  readonly machine: Machine;
  readonly cards: readonly ExaminedCard[];
  /** Cards that were not looked at, since they are down and nobody named them. */
  readonly leftOut: readonly string[];
  /** All findings, problems first. */
  readonly findings: readonly Finding[];
}

/** A card and what each mechanism lacks on it. */
export interface ExaminedCard {
  readonly name: string;
  readonly driver: string;
  readonly mechanisms: readonly MechanismState[];
}

/** Where to look. */
export interface ExamineOptions {
  /** One card; null: all that are up, but for the loopback. */
  readonly ifname: string | null;
  /** Where journals are; BIFURCATE_STATE_DIR or /run/bifurcate when left out. */
  readonly stateDirectory?: string | undefined;
}

/** Examines the machine and its cards; E_NO_SUCH_INTERFACE for one that is named and not there. */
export function examine(kernel: Kernel, netns: Netns, files: Files, options: ExamineOptions): Examination {
  const directory = options.stateDirectory ?? stateDirectory();
  const links = netns.links();
  const named = options.ifname === null ? null : findLink(links, options.ifname);
  const wanted = named === null ? links.filter((link) => !link.loopback && link.up) : [named];
  const machine = readMachine(kernel, files);
  const cards: Card[] = [];
  const findings: Finding[] = [];
  for (const link of wanted) {
    try {
      const card = readCard(kernel, netns, files, link.name, directory);
      cards.push(card);
      findings.push(...cardFindings(card));
    } catch (thrown) {
      findings.push(finding("unreadable", link.name, messageOf(thrown), "run it as root"));
    }
  }
  const queues = Math.max(1, ...cards.map((card) => card.queues));
  const all = [...machineFindings(machine, queues, listSplits(directory).errors), ...findings];
  return {
    machine,
    leftOut: links.filter((link) => named === null && !link.up && !link.loopback).map((link) => link.name),
    cards: cards.map((card) => ({
      name: card.facts.link.name,
      driver: card.facts.driver.driver,
      mechanisms: probeMechanisms({ machine, card }),
    })),
    findings: [
      ...all.filter((each) => each.level === "problem"),
      ...all.filter((each) => each.level === "advice"),
    ],
  };
}
