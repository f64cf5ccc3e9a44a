// The options of `bifurcate split`, from words to a request. Pure: every bad value is found before anything is done.

import { BifurcateError } from "@bifurcate/control/errors";
import type { Hint } from "@bifurcate/control/steering/metadata";
import type { Command } from "commander";
import type { ActionRequest } from "./action-run.js";
import {
  addCardOptions,
  addRunOptions,
  readCardFlags,
  type CardFlags,
  type CardRequest,
} from "./card-flags.js";
import { TRANSMIT, VIA } from "../split/options.js";
import { collect, parseAction, parseChoice, parseFile, parseMetadata, type Action } from "./options.js";

/** What was typed, as commander collects it. */
export interface SplitFlags extends CardFlags {
  readonly do?: Action;
  readonly output?: string[];
  readonly seconds?: number;
  readonly dryRun?: true;
  readonly tap?: string | true;
  readonly json?: true;
  readonly via: "auto" | "broker" | "in-process";
  readonly transmit?: "none" | "own" | "raw";
  readonly pass?: true;
  readonly cores?: number[];
  readonly metadata?: readonly Hint[];
}

/** What is to be done. */
export interface SplitCommand extends CardRequest, ActionRequest {
  readonly device: string;
  /** null: until a signal comes. */
  readonly seconds: number | null;
  readonly dryRun: boolean;
  /** false: no; true: for tcpdump to see; a path: into this pcapng file. */
  readonly tap: boolean | string;
  readonly netns: string | null;
  readonly via: "auto" | "broker" | "in-process";
  /** What a lease is asked to be allowed to send: what the action needs, when left out. */
  readonly transmit: "none" | "own" | "raw";
  /** undefined: opened where it can be had; through a broker it has to be asked for. */
  readonly pass: true | undefined;
  /** What the card's driver is asked of each frame. */
  readonly metadata: readonly Hint[];
}

/** Declares the options on a command. */
export function addSplitOptions(command: Command): Command {
  return addRunOptions(addCardOptions(command))
    .option(
      "--do <ACTION>",
      "drop, count, reflect, forward=TO (an interface, or what `bifurcate open` takes), or run=FILE (a handler in TypeScript); count when left out",
      parseAction,
    )
    .option(
      "--output <TO>",
      "with run=FILE: another port that the handler sends out of; may be repeated: batch.send(length, 1), 2, ...",
      collect,
    )
    .option("--dry-run", "print the plan and change nothing")
    .option("--tap [FILE]", "show the flow to tcpdump, or write it to FILE (pcapng)", (file: string) =>
      parseFile("--tap", file),
    )
    .option(
      "--via <V>",
      "auto (the broker, when one serves this card), broker, or in-process",
      parseChoice("--via", VIA),
      "auto",
    )
    .option(
      "--transmit <T>",
      "through a broker: none, own (answers, checked by the kernel) or raw; what --do needs when left out",
      parseChoice("--transmit", TRANSMIT),
    )
    .option("--pass", "frames may be given back to the kernel: an error where they cannot be")
    .option(
      "--metadata <LIST>",
      "ask the card's driver for each frame's hash, timestamp, vlan, or all, for the handler to read",
      parseMetadata,
    )
    .option("--json", "one JSON object a line; with --dry-run one document");
}

/** @throws E_BAD_OPTION for outputs that nothing is sent to. */
export function checkOutputs(action: Action, outputs: readonly string[]): void {
  if (outputs.length === 0 || action.kind === "run") return;
  const why = `only a handler file knows what to send there, and --do is ${action.kind}`;
  const next = "Use --do run=FILE; to send everything to one other port, --do forward=TO.";
  throw new BifurcateError("E_BAD_OPTION", { what: `read --output '${outputs[0]}'`, why, next });
}

/** Fills in what was left out. @throws E_NO_FLOW, E_BAD_OPTION */
export function readSplitFlags(device: string, flags: SplitFlags): SplitCommand {
  const card = readCardFlags(`split ${device}`, flags);
  const action = flags.do ?? { kind: "count" };
  const outputs = flags.output ?? [];
  checkOutputs(action, outputs);
  return {
    ...card,
    device,
    action,
    outputs,
    seconds: flags.seconds ?? null,
    dryRun: flags.dryRun ?? false,
    tap: flags.tap ?? false,
    via: flags.via,
    transmit: flags.transmit ?? (action.kind === "run" || action.kind === "reflect" ? "own" : "none"),
    pass: flags.pass,
    json: flags.json ?? false,
    cores: flags.cores,
    metadata: flags.metadata ?? [],
  };
}
