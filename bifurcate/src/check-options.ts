// Checks what a caller in JavaScript gives: each option is one that there is, and has a value that it can take.

import { BifurcateError } from "@bifurcate/control/errors";

/** What an option may be. */
export interface Kind {
  /** In words, after "it is ". */
  readonly allowed: string;
  readonly accepts: (value: unknown) => boolean;
}

/** The kind of each option of `T`: the compiler misses one that is left out. */
export type Kinds<T> = { readonly [K in keyof Required<T>]: Kind };

/** true or false. */
export const flag: Kind = { allowed: "true or false", accepts: (value) => typeof value === "boolean" };

/** A string that says something, and that the kernel takes: it ends at a zero byte. */
export const text: Kind = {
  allowed: "a string that is not empty",
  accepts: (value) => typeof value === "string" && value !== "" && !value.includes("\0"),
};

/** A function. */
export const call: Kind = { allowed: "a function", accepts: (value) => typeof value === "function" };

/** null, for what is left out on purpose. */
export const nothing: Kind = { allowed: "null", accepts: (value) => value === null };

/** An AbortSignal, also one of another realm. */
export const abortSignal: Kind = {
  allowed: "an AbortSignal",
  accepts: (value) =>
    typeof value === "object" &&
    value !== null &&
    "aborted" in value &&
    typeof value.aborted === "boolean" &&
    "addEventListener" in value &&
    typeof value.addEventListener === "function" &&
    "removeEventListener" in value &&
    typeof value.removeEventListener === "function",
};

/** One of a few words. */
export function word(words: readonly string[]): Kind {
  const allowed = words.map((each) => `"${each}"`).join(", ");
  return { allowed, accepts: (value) => words.some((each) => each === value) };
}

/** A whole number within limits. */
export function whole(least: number, most: number): Kind {
  return {
    allowed: `a whole number from ${least} to ${most}`,
    accepts: (value) => Number.isInteger(value) && (value as number) >= least && (value as number) <= most,
  };
}

/** A number above nothing. */
export function positive(most: number): Kind {
  return {
    allowed: `a number above 0, at most ${most}`,
    accepts: (value) => typeof value === "number" && value > 0 && value <= most,
  };
}

/** A list of at least one, of a kind. */
export function list(of: Kind): Kind {
  const accepts = (value: unknown): boolean =>
    Array.isArray(value) && value.length > 0 && Array.from<unknown>(value).every(of.accepts);
  return { allowed: `a list of at least one, each ${of.allowed}`, accepts };
}

/** A list in which nothing is twice. */
export function distinct(of: Kind): Kind {
  const each = list(of);
  const accepts = (value: unknown): boolean =>
    each.accepts(value) && new Set(value as unknown[]).size === (value as unknown[]).length;
  return { allowed: `${each.allowed}, none of them twice`, accepts };
}

/** One of several kinds. */
export function either(...kinds: readonly Kind[]): Kind {
  return {
    allowed: kinds.map(({ allowed }) => allowed).join(", or "),
    accepts: (value) => kinds.some(({ accepts }) => accepts(value)),
  };
}

/**
 * Reads an object of options once, so that what was checked is what is used. An option that is undefined is left out.
 * @param what What was asked for, e.g. "split eth0".
 * @param given What the caller gave.
 * @param kinds What each option may be; another one is an error.
 * @throws E_BAD_OPTION that names the option, what it was, and what it may be.
 */
export function readOptions<T extends object>(what: string, given: unknown, kinds: Kinds<T>): T {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw badOption(what, "options", given, { allowed: "an object" });
  }
  const read: Record<string, unknown> = {};
  for (const [option, from] of entriesOf(what, given)) {
    if (!Object.hasOwn(kinds, option)) throw unknownOption(what, option, Object.keys(kinds));
    if (from === undefined) continue;
    // A list is the caller's, who may change it later.
    const value: unknown = Array.isArray(from) ? Array.from<unknown>(from) : from;
    checkValue(what, option, value, (kinds as Readonly<Record<string, Kind>>)[option]!);
    read[option] = value;
  }
  return read as T;
}

/** @throws E_BAD_OPTION when the value is not of the kind. */
export function checkValue(what: string, option: string, value: unknown, kind: Kind): void {
  if (!kind.accepts(value)) throw badOption(what, option, value, kind);
}

/** Own options, and a caller's class with getters; a getter that throws is an error of ours too. */
function entriesOf(what: string, given: object): [string, unknown][] {
  try {
    return Object.entries(given);
  } catch (cause) {
    const why = "reading the options threw";
    throw new BifurcateError("E_BAD_OPTION", { what, why, next: "Give a plain object.", cause });
  }
}

function badOption(what: string, option: string, value: unknown, { allowed }: { allowed: string }): Error {
  const given = shown(value);
  return new BifurcateError("E_BAD_OPTION", {
    what,
    why: `${option} is ${given}, and has to be ${allowed}`,
    next: `Give ${option} such a value, or leave it out.`,
    data: { option, given, allowed },
  });
}

function unknownOption(what: string, option: string, known: readonly string[]): Error {
  const nearest = nearestOf(option, known);
  return new BifurcateError("E_BAD_OPTION", {
    what,
    why: `there is no option ${shown(option)}; the nearest is ${nearest}`,
    next: `The options are ${known.join(", ")}.`,
    data: { option, nearest },
  });
}

/** A value in a few words; nothing of the caller's is called. */
export function shown(value: unknown, depth = 0): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}...` : value);
    case "number":
      return Object.is(value, -0) ? "-0" : String(value);
    case "boolean":
    case "undefined":
      return String(value);
    case "bigint":
      return `${value}n`;
    case "function":
      return "a function";
    case "symbol":
      return "a symbol";
    case "object":
      break;
  }
  if (value === null) return "null";
  if (!Array.isArray(value)) return "an object";
  if (depth > 0) return "a list";
  const first = value.slice(0, 8).map((each) => shown(each, 1));
  return `[${first.join(", ")}${value.length > 8 ? ", ..." : ""}]`;
}

/** The word that takes the fewest changes of a letter, upper and lower case alike. */
function nearestOf(option: string, known: readonly string[]): string {
  const [first = "", ...others] = known;
  const changes = (each: string): number => distance(option.slice(0, 40).toLowerCase(), each.toLowerCase());
  return others.reduce((best, each) => (changes(each) < changes(best) ? each : best), first);
}

/** How many letters to add, remove or change (Levenshtein, row by row). */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, n) => n);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const change = row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, change));
    }
    row = next;
  }
  return row[to.length]!;
}
