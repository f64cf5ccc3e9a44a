// The policy: which users and groups may lease what. One readable file; an error points at its line.
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { BifurcateError, messageOf } from "../errors.js";
import {
  MECHANISMS,
  TRANSMIT,
  type LeaseRequest,
  type Mechanism,
  type Transmit,
} from "../protocol/messages.js";
import { compile, contains, parse } from "../steering/rules/index.js";
import type { Expression } from "../steering/rules/index.js";
import { accounts, type Accounts } from "./accounts.js";
import { LineError, readLines, type Section, type Setting } from "./policy-lines.js";
import { poolBytes } from "./pool.js";
import { checkWholeRule } from "./whole-card.js";

/**
 * What to do about a socket that is still open when its lease has ended: delete the port, which unbinds it; wait; or
 * end the client that does not let go of a queue of the card.
 */
export type Draining = "delete-port" | "wait" | "end-process";
const DRAINING: readonly Draining[] = ["delete-port", "wait", "end-process"];

/** One rule of the policy. */
export interface Rule {
  readonly name: string;
  readonly line: number;
  readonly users: ReadonlySet<number>;
  readonly groups: ReadonlySet<number>;
  readonly device: string;
  readonly flows: readonly { readonly text: string; readonly tree: Expression }[];
  readonly mechanisms: readonly Mechanism[];
  readonly queues: number;
  /** Queues of the card that root has set aside for leases of this rule; none: the broker carves them out by rules. */
  readonly ownQueues: readonly number[];
  readonly transmit: Transmit;
  readonly pass: boolean;
  /** Bytes of all pools together that one user may have by this rule. */
  readonly memory: number;
  /** Leases that one user may have by this rule. */
  readonly leases: number;
  /** Frames a second that a lease may send; null: as many as the card takes. */
  readonly rate: number | null;
  readonly draining: Draining;
}

export interface Policy {
  readonly path: string;
  readonly rules: readonly Rule[];
  /** Users who may list and release everybody's leases, beside root and the broker's own. */
  readonly admins: ReadonlySet<number>;
}

/** Who asks. */
export interface Asker {
  readonly uid: number;
  readonly gids: readonly number[];
}

/** What one user has by one rule already. */
export interface Holding {
  readonly leases: number;
  readonly memory: number;
}

const DEFAULTS = { queues: 1, memory: 64 * 2 ** 20, leases: 4 } as const;
const UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };
const RATE_MOST = 1_000_000_000;

function policyError(path: string, line: number | null, why: string, next?: string): BifurcateError {
  return new BifurcateError("E_POLICY", {
    what: line === null ? `read the policy ${path}` : `read the policy ${path}, line ${line}`,
    why,
    next,
    data: { path, line },
  });
}

/**
 * Reads and checks a policy file, which nobody but root and this process's user may own or write.
 * @throws E_POLICY, at the line that is wrong.
 */
export function readPolicy(path: string, names: Accounts = accounts()): Policy {
  let text: string;
  try {
    const file = openSync(path, "r");
    try {
      const { uid, mode } = fstatSync(file);
      const own = process.geteuid?.() ?? 0;
      if (uid !== 0 && uid !== own) {
        const next = `Give it to root: chown root ${path}`;
        throw policyError(path, null, `it belongs to user ${uid}, who could change it`, next);
      }
      if ((mode & 0o022) !== 0) {
        const why = `its mode is ${(mode & 0o777).toString(8)}: others than its owner may write it`;
        throw policyError(path, null, why, `Take that right away: chmod go-w ${path}`);
      }
      text = readFileSync(file, "utf8");
    } finally {
      closeSync(file);
    }
  } catch (thrown) {
    if (thrown instanceof BifurcateError) throw thrown;
    throw policyError(path, null, messageOf(thrown), "Write one; docs/broker.md shows an example.");
  }
  return parsePolicy(text, path, names);
}

/** That a broker with these capabilities can do what the policy says. @throws E_POLICY */
export function checkMeans({ path, rules }: Policy, capabilities: readonly string[]): void {
  const rule = rules.find(({ draining }) => draining === "end-process");
  if (rule === undefined || capabilities.includes("CAP_KILL")) return;
  const why = `[${rule.name}] is to end processes of other users, and the broker lacks CAP_KILL`;
  const next = "Add CAP_KILL to both sets of the unit, or choose draining = wait.";
  throw policyError(path, rule.line, why, next);
}

/** Checks the text of a policy. @throws E_POLICY, at the line that is wrong. */
export function parsePolicy(text: string, path: string, names: Accounts): Policy {
  try {
    const { head, sections } = readLines(text);
    const admins = new Set<number>();
    for (const setting of head) {
      if (setting.key !== "admin") {
        throw new LineError(
          setting.line,
          `'${setting.key}' stands before the first [rule]; only 'admin' may`,
        );
      }
      for (const uid of list(setting, (name) => names.user(name), "user")) admins.add(uid);
    }
    return { path, rules: sections.map((section) => ruleOf(section, names)), admins };
  } catch (thrown) {
    if (!(thrown instanceof LineError)) throw thrown;
    throw policyError(path, thrown.line, thrown.message);
  }
}

function ruleOf(section: Section, names: Accounts): Rule {
  const users = new Set<number>();
  const groups = new Set<number>();
  const flows: Rule["flows"][number][] = [];
  const once = new Map<string, Setting>();
  for (const setting of section.settings) {
    const { key, line } = setting;
    if (key === "user") for (const uid of list(setting, (name) => names.user(name), "user")) users.add(uid);
    else if (key === "group")
      for (const gid of list(setting, (name) => names.group(name), "group")) groups.add(gid);
    else if (key === "flow") flows.push(flowOf(setting));
    else if (KEYS.includes(key)) {
      const before = once.get(key);
      if (before !== undefined) throw new LineError(line, `'${key}' stands in line ${before.line} already`);
      once.set(key, setting);
    } else {
      const known = ["user", "group", "flow", ...KEYS].join(", ");
      throw new LineError(line, `'${key}' is not known; a rule has ${known}`);
    }
  }
  const values = {
    mechanisms: mechanismsOf(once.get("mechanism")),
    queues: numberOf(once.get("queues"), DEFAULTS.queues, 64),
    ownQueues: queuesOf(once.get("own-queues")),
    transmit: wordOf(once.get("transmit"), TRANSMIT, "none"),
    pass: wordOf(once.get("pass"), ["yes", "no"], "no") === "yes",
    memory: bytesOf(once.get("memory"), DEFAULTS.memory),
    leases: numberOf(once.get("leases"), DEFAULTS.leases, 4096),
    rate: once.has("rate") ? numberOf(once.get("rate"), 1, RATE_MOST) : null,
    draining: wordOf(once.get("draining"), DRAINING, "delete-port"),
  };
  const missing = (what: string): LineError =>
    new LineError(section.line, `[${section.name}] names no ${what}`);
  const device = once.get("device")?.value;
  if (users.size === 0 && groups.size === 0) throw missing("user and no group");
  if (device === undefined) throw missing("device");
  const { name, line } = section;
  if (values.mechanisms.includes("vfio")) {
    const settings = [...once.values(), ...section.settings.filter(({ key }) => key === "flow")];
    checkWholeRule(device, settings, line);
  } else if (flows.length === 0) throw missing("flow");
  return { name, line, users, groups, device, flows, ...values };
}

const KEYS: readonly string[] = [
  "device",
  "mechanism",
  "queues",
  "own-queues",
  "transmit",
  "pass",
  "memory",
  "leases",
  "rate",
  "draining",
];

function list(setting: Setting, find: (name: string) => number | null, kind: string): number[] {
  return setting.value.split(",").map((each) => {
    const name = each.trim();
    const id = find(name);
    if (id === null) throw new LineError(setting.line, `there is no ${kind} '${name}'`);
    return id;
  });
}

function flowOf({ value, line }: Setting): Rule["flows"][number] {
  try {
    return { text: value, tree: compile(value).tree };
  } catch (thrown) {
    if (!(thrown instanceof BifurcateError)) throw thrown;
    throw new LineError(line, thrown.message);
  }
}

/** An outsider's port is weaker than the others, and a card is more than a flow, so they are given by name only. */
function mechanismsOf(setting: Setting | undefined): Mechanism[] {
  if (setting === undefined) return ["port", "queue"];
  return setting.value.split(",").map((each) => {
    const word = each.trim();
    const found = MECHANISMS.find((known) => known === word);
    if (found !== undefined) return found;
    throw new LineError(setting.line, `'${word}' is no mechanism: ${MECHANISMS.join(", ")}`);
  });
}

/** Highest number of a queue that a policy names; the broker's maps have a place for each. */
const QUEUE_HIGHEST = 1023;

function queuesOf(setting: Setting | undefined): number[] {
  if (setting === undefined) return [];
  const queues = setting.value.split(",").map((each) => {
    const word = each.trim();
    const queue = /^\d{1,4}$/.test(word) ? Number(word) : NaN;
    if (queue <= QUEUE_HIGHEST) return queue;
    throw new LineError(setting.line, `'${word}' is no queue's number: 0 to ${QUEUE_HIGHEST}`);
  });
  const twice = queues.find((queue, at) => queues.indexOf(queue) !== at);
  if (twice === undefined) return queues;
  throw new LineError(setting.line, `own-queues names queue ${twice} twice`);
}

function wordOf<W extends string>(setting: Setting | undefined, words: readonly W[], left: W): W {
  if (setting === undefined) return left;
  const found = words.find((each) => each === setting.value);
  if (found !== undefined) return found;
  throw new LineError(setting.line, `${setting.key} is ${words.join(", ")}, not '${setting.value}'`);
}

function numberOf(setting: Setting | undefined, left: number, most: number): number {
  if (setting === undefined) return left;
  const number = /^\d{1,10}$/.test(setting.value) ? Number(setting.value) : NaN;
  if (number >= 1 && number <= most) return number;
  throw new LineError(
    setting.line,
    `${setting.key} is a whole number from 1 to ${most}, not '${setting.value}'`,
  );
}

function bytesOf(setting: Setting | undefined, left: number): number {
  if (setting === undefined) return left;
  const match = /^(\d{1,9})([KMG]?)$/.exec(setting.value);
  if (match !== null) return Number(match[1]) * UNITS[match[2]!]!;
  throw new LineError(setting.line, `memory is a number of bytes such as 64M, not '${setting.value}'`);
}

/** What is asked for, as errors say it. */
export function leaseWords({ device, flows, mechanism }: LeaseRequest): string {
  return mechanism === "vfio" ? `lease the card ${device}` : `lease '${flows.join("', '")}' on ${device}`;
}

/** Whether a rule is about that user. */
function names(rule: Rule, asker: Asker): boolean {
  return rule.users.has(asker.uid) || asker.gids.some((gid) => rule.groups.has(gid));
}

/** Why a rule does not give the lease, which takes so many bytes; null when it does. */
function refusal(rule: Rule, request: LeaseRequest, held: Holding, wanted: number): string | null {
  if ((request.mechanism === "vfio") !== rule.mechanisms.includes("vfio")) {
    return `the mechanism is ${rule.mechanisms.join(" or ")}, not ${request.mechanism}`;
  }
  const outside = request.flows.find((flow) => {
    const tree = parse(flow);
    return !rule.flows.some((allowed) => contains(allowed.tree, tree));
  });
  if (outside !== undefined) {
    return `the flow '${outside}' is not within ${rule.flows.map(({ text }) => `'${text}'`).join(" or ")}`;
  }
  if (request.mechanism !== "auto" && !rule.mechanisms.includes(request.mechanism)) {
    return `the mechanism is ${rule.mechanisms.join(" or ")}, not ${request.mechanism}`;
  }
  if (request.mechanism === "auto" && rule.mechanisms.every((each) => each === "foreign")) {
    return "the mechanism is foreign, which has to be asked for by name";
  }
  if (request.queues > rule.queues) return `it gives ${rule.queues} queues, not ${request.queues}`;
  if (TRANSMIT.indexOf(request.transmit) > TRANSMIT.indexOf(rule.transmit)) {
    return `it gives transmit '${rule.transmit}', not '${request.transmit}'`;
  }
  if (request.pass && !rule.pass) return "it does not give pass";
  if (held.leases + 1 > rule.leases) return `it gives ${rule.leases} leases, and all are taken`;
  if (held.memory + wanted > rule.memory) {
    return `it gives ${rule.memory} bytes of memory, ${held.memory} are taken, and ${wanted} are asked for`;
  }
  return null;
}

/**
 * The rule that gives a lease to who asks; the first in the file that does.
 * @param held What the user has by a rule already.
 * @param wanted Bytes of memory that the lease takes, as far as they are known.
 * @throws E_LEASE_DENIED with every reason.
 */
export function decide(
  policy: Policy,
  asker: Asker,
  request: LeaseRequest,
  held: (rule: string) => Holding,
  wanted = poolBytes(request, null),
): Rule {
  const about = policy.rules.filter((rule) => names(rule, asker) && rule.device === request.device);
  const reasons: string[] = [];
  for (const rule of about) {
    const why = refusal(rule, request, held(rule.name), wanted);
    if (why === null) return rule;
    reasons.push(`[${rule.name}]: ${why}`);
  }
  throw new BifurcateError("E_LEASE_DENIED", {
    what: leaseWords(request),
    why:
      reasons.length === 0
        ? `no rule of the policy lets user ${asker.uid} lease ${request.device}`
        : reasons.join("; "),
  });
}
