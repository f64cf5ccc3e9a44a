// The options that say how a card is split, shared by the commands that split one.

import { BifurcateError } from "@bifurcate/control/errors";
import type { Command } from "commander";
import { BACKENDS, ZERO_COPY, type SplitOptions } from "../split/options.js";
import { collect, parseChoice, parseCores, parseDuration, parseQueues } from "./options.js";

/** What was typed, as commander collects it. */
export interface CardFlags {
  readonly flow?: string[];
  readonly queues?: number[];
  readonly backend: (typeof BACKENDS)[number];
  readonly zeroCopy: "require" | "prefer" | "off";
  readonly confirm?: number;
  readonly netns?: string;
  readonly force?: true;
  readonly busyPoll?: true;
  readonly lease?: true;
}

/** How a card is to be split. */
export interface CardRequest {
  readonly flows: readonly string[];
  readonly queues: readonly number[] | undefined;
  readonly backend: (typeof BACKENDS)[number];
  readonly zeroCopy: "require" | "prefer" | "off";
  /** null: no need to confirm. */
  readonly confirmSeconds: number | null;
  readonly netns: string | null;
  readonly force: boolean;
  readonly busyPoll: boolean;
  /** The own queue is to be a queue lease. */
  readonly lease: boolean;
}

/** Declares the options on a command. */
export function addCardOptions(command: Command): Command {
  return command
    .option(
      "--flow <EXPR>",
      "a pcap-filter(7) expression, or all; may be repeated: a frame of any of them is taken",
      collect,
    )
    .option("--queues <LIST>", "queues to use, e.g. 3 or 0,2-3; chosen for you when left out", parseQueues)
    .option(
      "--backend <B>",
      "auto, af_xdp, af_packet, or vf (a virtual function of the card)",
      parseChoice("--backend", BACKENDS),
      "auto",
    )
    .option("--zero-copy <Z>", "require, prefer or off", parseChoice("--zero-copy", ZERO_COPY), "prefer")
    .option(
      "--confirm <T>",
      "undo it all after this time unless Enter is pressed: nobody locks himself out",
      (text: string) => parseDuration("--confirm", text),
    )
    .option("--netns <NAME>", "the device lives in this network namespace (a name or a path)")
    .option("--force", "take the SSH session's own flow too")
    .option("--busy-poll", "poll without sleeping: the lowest delay, a whole processor a queue")
    .option("--lease", "take the own queue as a queue lease, or fail (docs/leases.md)");
}

/** Declares when what runs ends, and where it runs. */
export function addRunOptions(command: Command): Command {
  return command
    .option("--seconds <N>", "end after this time; 10, 30s, 5m", (text: string) =>
      parseDuration("--seconds", text),
    )
    .option("--cores <LIST>", "bind the queues' threads to these processors", parseCores);
}

/** Fills in what was left out. @throws E_NO_FLOW: `what` has no flow to take. */
export function readCardFlags(what: string, flags: CardFlags): CardRequest {
  if (flags.flow === undefined) throw new BifurcateError("E_NO_FLOW", { what, why: "no flow was named" });
  return {
    flows: flags.flow,
    queues: flags.queues,
    backend: flags.backend,
    zeroCopy: flags.zeroCopy,
    confirmSeconds: flags.confirm ?? null,
    netns: flags.netns ?? null,
    force: flags.force ?? false,
    busyPoll: flags.busyPoll ?? false,
    lease: flags.lease ?? false,
  };
}

/** As the API takes it. */
export function splitOptions(request: CardRequest, onWarning: (text: string) => void): SplitOptions {
  const { flows, queues, backend, zeroCopy, confirmSeconds, netns, force, busyPoll, lease } = request;
  const steering = lease ? "lease" : "auto";
  return { flows, queues, backend, zeroCopy, confirmSeconds, netns, force, busyPoll, steering, onWarning };
}
