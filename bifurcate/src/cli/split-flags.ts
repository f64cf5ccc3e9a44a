// The options of `bifurcate split`, from words to a request. Pure: every bad value is found before anything is done.

import { BifurcateError, type Hint } from "@bifurcate/control";
import type { Command } from "commander";
import {
  collect,
  parseAction,
  parseChoice,
  parseCores,
  parseDuration,
  parseMetadata,
  parseQueues,
  type Action,
} from "./options.js";

/** What was typed, as commander collects it. */
export interface SplitFlags {
  readonly flow?: string[];
  readonly queues?: number[];
  readonly backend: "auto" | "af_xdp" | "af_packet";
  readonly zeroCopy: "require" | "prefer" | "off";
  readonly do?: Action;
  readonly output?: string[];
  readonly seconds?: number;
  readonly dryRun?: true;
  readonly confirm?: number;
  readonly tap?: string | true;
  readonly json?: true;
  readonly netns?: string;
  readonly force?: true;
  readonly busyPoll?: true;
  readonly via: "auto" | "broker" | "in-process";
  readonly transmit?: "none" | "own" | "raw";
  readonly pass?: true;
  readonly lease?: true;
  readonly cores?: number[];
  readonly metadata?: readonly Hint[];
}

/** What is to be done. */
export interface SplitCommand {
  readonly device: string;
  readonly flows: readonly string[];
  readonly queues: readonly number[] | undefined;
  readonly backend: "auto" | "af_xdp" | "af_packet";
  readonly zeroCopy: "require" | "prefer" | "off";
  readonly action: Action;
  /** Other cards that a handler file sends out of, by `batch.send(length, 1)` and so on. */
  readonly outputs: readonly string[];
  /** null: until a signal comes. */
  readonly seconds: number | null;
  readonly dryRun: boolean;
  /** null: no need to confirm. */
  readonly confirmSeconds: number | null;
  /** false: no; true: for tcpdump to see; a path: into this pcapng file. */
  readonly tap: boolean | string;
  readonly json: boolean;
  readonly netns: string | null;
  readonly force: boolean;
  readonly busyPoll: boolean;
  readonly via: "auto" | "broker" | "in-process";
  /** What a lease is asked to be allowed to send: what the action needs, when left out. */
  readonly transmit: "none" | "own" | "raw";
  /** undefined: opened where it can be had; through a broker it has to be asked for. */
  readonly pass: true | undefined;
  /** The own queue is to be a queue lease. */
  readonly lease: boolean;
  readonly cores: readonly number[] | undefined;
  /** What the card's driver is asked of each frame. */
  readonly metadata: readonly Hint[];
}

/** Declares the options on a command. */
export function addSplitOptions(command: Command): Command {
  return command
    .option(
      "--flow <EXPR>",
      "a pcap-filter(7) expression, or all; may be repeated: a frame of any of them is taken",
      collect,
    )
    .option("--queues <LIST>", "queues to use, e.g. 3 or 0,2-3; chosen for you when left out", parseQueues)
    .option(
      "--backend <B>",
      "auto, af_xdp or af_packet",
      parseChoice("--backend", ["auto", "af_xdp", "af_packet"]),
      "auto",
    )
    .option(
      "--zero-copy <Z>",
      "require, prefer or off",
      parseChoice("--zero-copy", ["require", "prefer", "off"]),
      "prefer",
    )
    .option(
      "--do <ACTION>",
      "drop, count, reflect, forward=DEV, or run=FILE (a handler in TypeScript); count when left out",
      parseAction,
    )
    .option(
      "--output <DEV>",
      "with run=FILE: another card that the handler sends out of; may be repeated: batch.send(length, 1), 2, ...",
      collect,
    )
    .option("--seconds <N>", "end after this time; 10, 30s, 5m", (text: string) =>
      parseDuration("--seconds", text),
    )
    .option("--dry-run", "print the plan and change nothing")
    .option(
      "--confirm <T>",
      "undo it all after this time unless Enter is pressed: nobody locks himself out",
      (text: string) => parseDuration("--confirm", text),
    )
    .option("--tap [FILE]", "show the flow to tcpdump, or write it to FILE (pcapng)")
    .option("--netns <NAME>", "the device lives in this network namespace (a name or a path)")
    .option("--force", "take the SSH session's own flow too")
    .option("--busy-poll", "poll without sleeping: the lowest delay, a whole processor a queue")
    .option("--lease", "take the own queue as a queue lease, or fail (docs/leases.md)")
    .option(
      "--via <V>",
      "auto (the broker, when one serves this card), broker, or in-process",
      parseChoice("--via", ["auto", "broker", "in-process"]),
      "auto",
    )
    .option(
      "--transmit <T>",
      "through a broker: none, own (answers, checked by the kernel) or raw; what --do needs when left out",
      parseChoice("--transmit", ["none", "own", "raw"]),
    )
    .option("--pass", "frames may be given back to the kernel: an error where they cannot be")
    .option("--cores <LIST>", "bind the queues' threads to these processors", parseCores)
    .option(
      "--metadata <LIST>",
      "ask the card's driver for each frame's hash, timestamp, vlan, or all, for the handler to read",
      parseMetadata,
    )
    .option("--json", "one JSON object a line; with --dry-run one document");
}

/** Fills in what was left out. @throws E_NO_FLOW */
export function readSplitFlags(device: string, flags: SplitFlags): SplitCommand {
  const what = `split ${device}`;
  if (flags.flow === undefined) throw new BifurcateError("E_NO_FLOW", { what, why: "no flow was named" });
  const action = flags.do ?? { kind: "count" };
  const outputs = flags.output ?? [];
  if (outputs.length > 0 && action.kind !== "run") {
    const why = `only a handler file knows what to send there, and --do is ${action.kind}`;
    const next = "Use --do run=FILE; to send everything to one other card, --do forward=DEV.";
    throw new BifurcateError("E_BAD_OPTION", { what: `read --output '${outputs[0]}'`, why, next });
  }
  return {
    device,
    flows: flags.flow,
    queues: flags.queues,
    backend: flags.backend,
    zeroCopy: flags.zeroCopy,
    action,
    outputs,
    seconds: flags.seconds ?? null,
    dryRun: flags.dryRun ?? false,
    confirmSeconds: flags.confirm ?? null,
    tap: flags.tap ?? false,
    json: flags.json ?? false,
    netns: flags.netns ?? null,
    force: flags.force ?? false,
    busyPoll: flags.busyPoll ?? false,
    via: flags.via,
    transmit: flags.transmit ?? (action.kind === "run" || action.kind === "reflect" ? "own" : "none"),
    pass: flags.pass,
    lease: flags.lease ?? false,
    cores: flags.cores,
    metadata: flags.metadata ?? [],
  };
}
