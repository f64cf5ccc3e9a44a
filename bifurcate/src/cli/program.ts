// The whole command line, put together from its commands, and the one place where its errors end.

import { Command, CommanderError } from "commander";
import { BifurcateError, wrapError } from "@bifurcate/control/errors";
import { CommandStatus, renderError, type Streams } from "./io.js";
import { collect } from "./options.js";
import { version } from "./version.js";

const HELP = `
Examples:
  bifurcate devices                                          what each card can do, and why not more
  bifurcate split eth0 --flow 'udp dst port 53' --do run=examples/dns.ts
  bifurcate split eth0 --flow 'udp dst port 53' --dry-run    what it would change, and change nothing
  bifurcate forward eth0 vhost-user:/run/vm0.sock,server --flow 'ether dst 52:54:00:12:34:56'
  bifurcate doctor eth0                                      what is wrong here, and what mends it
  bifurcate explain 'udp dst port 53'                        how a flow is understood
  bifurcate explain eth0 'udp 192.0.2.1:9 > 192.0.2.2:53'    which stage decides what of a packet
  bifurcate compare --run                                    every way to user space, measured side by side
  bifurcate lab up                                           a card to try it on, without hardware
  bifurcate lab guest --nics igb,igb                         real NIC drivers to try it on, without hardware

Exit status: 0 done, 1 failed, 2 usage, 77 this machine cannot. All error codes: docs/errors.md
`;

type MakeCommand = (streams: Streams) => Command;

/** Every command, in the order of the help. Each is loaded when it is asked for: the others would take most of the start. */
const COMMANDS: Readonly<Record<string, () => Promise<MakeCommand>>> = {
  devices: async () => (await import("./commands/devices.js")).devicesCommand,
  doctor: async () => (await import("./commands/doctor.js")).doctorCommand,
  split: async () => (await import("./commands/split.js")).splitCommand,
  open: async () => (await import("./commands/open.js")).openCommand,
  forward: async () => (await import("./commands/forward.js")).forwardCommand,
  foreign: async () => (await import("./commands/foreign.js")).foreignCommand,
  release: async () => (await import("./commands/release.js")).releaseCommand,
  leases: async () => (await import("./commands/leases.js")).leasesCommand,
  take: async () => (await import("./commands/take.js")).takeCommand,
  give: async () => (await import("./commands/give.js")).giveCommand,
  confirm: async () => (await import("./commands/confirm.js")).confirmCommand,
  explain: async () => (await import("./commands/explain.js")).explainCommand,
  compare: async () => (await import("./commands/compare.js")).compareCommand,
  lab: async () => (await import("./commands/lab.js")).labCommand,
};

const isCommand = (word: string): boolean => Object.hasOwn(COMMANDS, word);

/**
 * The commander program; it throws instead of ending the process.
 * @param names The commands that it is to have: all of them when none is given.
 */
export async function makeProgram(
  streams: Streams,
  names: readonly string[] = Object.keys(COMMANDS),
): Promise<Command> {
  const program = new Command("bifurcate")
    .description(
      "One network card, two drivers: chosen flows go to user space, everything else stays with the kernel.",
    )
    .version(version())
    .addHelpText("after", HELP);
  for (const name of names) program.addCommand((await COMMANDS[name]!())(streams));
  const quiet = (command: Command): void => {
    refuseTwice(command);
    command.exitOverride().configureOutput({ writeOut: streams.out, writeErr: () => undefined });
    command.commands.forEach(quiet);
  };
  quiet(program);
  return program;
}

/** An option with a value is given once, unless it collects: which of two was meant is not ours to guess. */
function refuseTwice(command: Command): void {
  for (const option of command.options) {
    if ((!option.required && !option.optional) || option.variadic || option.parseArg === collect) continue;
    let first: string | undefined;
    command.on(`option:${option.name()}`, (value: string | null) => {
      if (first === undefined) {
        first = value ?? "";
        return;
      }
      throw new BifurcateError("E_BAD_OPTION", {
        what: `read ${option.long ?? option.flags} '${value ?? ""}'`,
        why: `it was given before, as '${first}'`,
        next: `Give ${option.long ?? option.flags} once.`,
      });
    });
  }
}

/** The commands to choose from, in words. */
const subcommands = (word: string): string =>
  `one of ${(word === "lab" ? ["up", "down", "status", "guest", "fetch"] : Object.keys(COMMANDS)).join(", ")}`;

/** Commander's own errors in our form; null when there is none, since it only showed help or the version. */
function usageError(error: CommanderError, argv: readonly string[]): BifurcateError | null {
  if (error.exitCode === 0) return null;
  const [word = ""] = argv.filter((each) => !each.startsWith("-"));
  // A command without its subcommand: commander says nothing but the help.
  const why =
    error.code === "commander.help"
      ? `a command is missing: ${subcommands(word)}`
      : error.message.replace(/^error: /, "");
  const known = isCommand(word);
  return new BifurcateError("E_USAGE", {
    what: `run bifurcate ${argv.join(" ")}`.trimEnd(),
    why,
    next: `See bifurcate ${known ? `${word} ` : ""}--help.`,
  });
}

/**
 * Runs one command line.
 * @param argv Without the interpreter and the script.
 * @returns The exit status; nothing is thrown.
 */
export async function runCommandLine(argv: readonly string[], streams: Streams): Promise<number> {
  // What stands after -- is another command's.
  const own = argv.includes("--") ? argv.slice(0, argv.indexOf("--")) : argv;
  const json = own.includes("--json");
  try {
    const [first = ""] = argv;
    const needed = isCommand(first) ? [first] : first === "--version" ? [] : undefined;
    const program = await makeProgram(streams, needed);
    await program.parseAsync(argv, { from: "user" });
    return 0;
  } catch (thrown) {
    if (thrown instanceof CommandStatus) return thrown.status;
    const error =
      thrown instanceof CommanderError
        ? usageError(thrown, argv)
        : wrapError(thrown, `run bifurcate ${argv[0] ?? ""}`);
    if (error === null) return 0;
    streams.err(renderError(error, json));
    return error.status;
  }
}
