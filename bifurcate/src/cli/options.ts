// What the values of options mean: each parser gives a value or an E_BAD_OPTION that lists what it takes.

import { BifurcateError } from "@bifurcate/control/errors";
import { HINTS, type Hint } from "@bifurcate/control/steering/metadata";
import { SECONDS_MAX } from "../split/options.js";

/** What becomes of the flow's frames. */
export type Action =
  | { readonly kind: "drop" | "count" | "reflect" }
  | { readonly kind: "forward"; readonly to: string }
  | { readonly kind: "run"; readonly file: string };

function bad(option: string, value: string, why: string, next: string): BifurcateError {
  return new BifurcateError("E_BAD_OPTION", {
    what: `read ${option} '${value}'`,
    why,
    next,
    data: { option, value },
  });
}

/** "0,2-3": numbers and ranges, in the order that they were given. */
function parseList(option: string, text: string, of: string): number[] {
  const numbers: number[] = [];
  for (const part of text.split(",")) {
    const range = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part.trim());
    const first = Number(range?.[1]);
    const last = Number(range?.[2] ?? range?.[1]);
    if (range === null || last < first) {
      throw bad(
        option,
        text,
        `'${part}' is no ${of} and no range of them`,
        `Write for example ${option} 0,2-3.`,
      );
    }
    for (let number = first; number <= last; number += 1) numbers.push(number);
  }
  return numbers;
}

/** --queues: queue numbers, each once, from the lowest on. */
export function parseQueues(text: string): number[] {
  const queues = parseList("--queues", text, "queue number").sort((a, b) => a - b);
  const twice = queues.find((queue, at) => queue === queues[at + 1]);
  if (twice === undefined) return queues;
  throw bad("--queues", text, `the queue ${twice} is listed twice`, "Name each queue once.");
}

/** --cores: processor numbers, in the order of the queues; one may serve several. */
export const parseCores = (text: string): number[] => parseList("--cores", text, "processor number");

/** A time in seconds: "30s", "500ms", "2m", "1h"; a plain number means seconds. */
export function parseDuration(option: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim());
  const unit = { ms: 0.001, s: 1, m: 60, h: 3600 }[match?.[2] ?? "s"] ?? Number.NaN;
  const seconds = Number(match?.[1]) * unit;
  if (seconds > 0 && seconds <= SECONDS_MAX) return seconds;
  const why = match === null ? "it is no time" : "it must be more than nothing and at most 30 days";
  throw bad(option, text, why, `Write for example ${option} 30s.`);
}

/** --do: what becomes of the frames. */
export function parseAction(text: string): Action {
  const [, word = "", value] = /^([^=]*)(?:=(.*))?$/s.exec(text) ?? [];
  const all = "One of drop, count, reflect, forward=TO, run=FILE.";
  if (word === "drop" || word === "count" || word === "reflect") {
    if (value === undefined) return { kind: word };
    throw bad("--do", text, `${word} takes no value`, all);
  }
  if (word !== "forward" && word !== "run") throw bad("--do", text, "there is no such action", all);
  if (value === undefined || value === "") {
    throw bad("--do", text, `${word} needs ${word === "run" ? "a file" : "an interface or a spec"}`, all);
  }
  return word === "run" ? { kind: "run", file: value } : { kind: "forward", to: value };
}

/** One of a few words. */
export function parseChoice<const T extends string>(
  option: string,
  choices: readonly T[],
): (text: string) => T {
  return (text) => {
    const choice = choices.find((each) => each === text);
    if (choice !== undefined) return choice;
    throw bad(option, text, "there is no such choice", `One of ${choices.join(", ")}.`);
  };
}

/** --metadata: what the card's driver is asked of each frame. */
export function parseMetadata(text: string): readonly Hint[] {
  if (text === "all") return HINTS;
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !(HINTS as readonly string[]).includes(name));
  if (unknown === undefined) return HINTS.filter((hint) => names.includes(hint));
  throw bad("--metadata", text, `'${unknown}' is none of them`, `One or more of ${HINTS.join(",")}, or all.`);
}

/** A file to write to. */
export function parseFile(option: string, text: string): string {
  if (text !== "") return text;
  throw bad(option, text, "the name of the file is empty", `Write for example ${option} x.pcapng.`);
}

/** Collects an option that may be given several times. */
export function collect(value: string, earlier: readonly string[] | undefined): string[] {
  return [...(earlier ?? []), value];
}

/** A whole number within limits. */
export function whole(option: string, text: string, least: number, most: number): number {
  const number = Number(text);
  if (Number.isInteger(number) && number >= least && number <= most) return number;
  throw bad(
    option,
    text,
    `it must be a whole number from ${least} to ${most}`,
    `Leave ${option} out, or give such a number.`,
  );
}
