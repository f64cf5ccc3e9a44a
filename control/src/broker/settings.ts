// The settings of a card that leases with queues of their own change: made one by one, each written down before, and
// undone where they are still the broker's.
import { messageOf } from "../errors.js";
import type { Netns } from "../kernel.js";
import type { OwnQueues, TableBefore } from "../lease/record.js";
import { carveOut } from "../steering/carveout.js";
import type { Step } from "../steering/plan.js";
import { applyStep, undoStep } from "../transaction/change.js";
import type { StepState } from "../transaction/journal.js";

/** A card by name and number, where it is now. */
export interface CardPlace {
  readonly netns: Netns;
  readonly name: string;
  readonly ifindex: number;
}

/** Writes down how far it got. */
export type Note = (own: OwnQueues) => void;

/** Takes the lease's queues out of the table; `carved` are those that leases before it have taken out. */
export function applyTable(card: CardPlace, own: OwnQueues, carved: readonly number[]): void {
  const { before } = own;
  if (before === null) return;
  const table = carveOut(before.table, before.queues, [...carved, ...own.queues]);
  if (table === null || same(table, card.netns.rss(card.name)?.indirection ?? [])) return;
  const words = `take queue ${own.queues.join(", ")} out of the RSS table`;
  applyStep(card.netns, card.name, {
    ...tableStep(card, before, table, before.restore, words),
  });
}

/** Makes the steps that come before or after the sockets. */
export function applySteps(card: CardPlace, own: OwnQueues, when: Step["when"], note: Note): OwnQueues {
  let now = own;
  for (const [at, step] of own.steps.entries()) {
    if (step.when !== when) continue;
    note((now = marked(now, at, "applying")));
    applyStep(card.netns, card.name, step);
    note((now = marked(now, at, "applied")));
  }
  return now;
}

/** What an undo came to: what is left to try again, and what was left alone since somebody changed it. */
interface SettingsUndone {
  readonly own: OwnQueues;
  readonly left: readonly string[];
  readonly failed: readonly string[];
}

/** Undoes the steps of one kind that may have happened, last first; a failure does not stop the rest. */
function undoSteps(card: CardPlace, own: OwnQueues, when: Step["when"], note: Note): SettingsUndone {
  let now = own;
  const [left, failed]: [string[], string[]] = [[], []];
  for (let at = own.steps.length - 1; at >= 0; at--) {
    const [step, state] = [own.steps[at]!, own.states[at]!];
    if (step.when !== when || !(state === "applying" || state === "applied")) continue;
    try {
      const undone = undoStep(card.netns, card.name, step);
      if (undone.state === "left") left.push(undone.why);
      note((now = marked(now, at, undone.state)));
    } catch (thrown) {
      failed.push(`${step.words}: ${messageOf(thrown)}`);
    }
  }
  return { own: now, left, failed };
}

/**
 * Gives the lease's queues back to the table, where it is still as the leases made it; `others` are the queues of those
 * that go on. @returns why it was left alone; null when it was put back. @throws what the kernel answered.
 */
function undoTable(card: CardPlace, own: OwnQueues, others: readonly number[]): string | null {
  const { before } = own;
  if (before === null) return null;
  const ours = carveOut(before.table, before.queues, [...others, ...own.queues]);
  const rest = others.length === 0 ? null : carveOut(before.table, before.queues, others);
  if (ours === null || same(ours, rest ?? before.table)) return null;
  const words = `give queue ${own.queues.join(", ")} back to the RSS table`;
  const step = tableStep(card, before, ours, others.length === 0 ? before.restore : rest, words);
  const undone = undoStep(card.netns, card.name, rest === null ? step : { ...step, was: step.undo });
  return undone.state === "left" ? undone.why : null;
}

/** A lease with queues of its own. */
export interface Settled {
  /** How far its settings are now. */
  own(): OwnQueues;
  readonly granted: boolean;
  readonly note: Note;
}

/**
 * Undoes the steps of one kind of a lease that ends, beside others of the card that go on; with those of before, the
 * table. What concerns the whole card goes to one of the others.
 * @returns What was left alone, and what is to be tried again.
 */
export function undoOwn(
  card: CardPlace,
  ending: Settled,
  others: readonly Settled[],
  when: Step["when"],
): { readonly left: string[]; readonly failed: string[] } {
  const [left, failed]: [string[], string[]] = [[], []];
  if (when === "before") {
    const heir = others.find(({ granted }) => granted);
    if (heir !== undefined) {
      const moved = inherit(ending.own(), heir.own());
      // The heir's first: written down twice it is undone twice, which is once; never, it would stay.
      heir.note(moved.to);
      ending.note(moved.from);
    }
    try {
      const carved = others.map(({ own }) => own()).filter((each) => each.before !== null);
      const queues = carved.flatMap((each) => each.queues);
      const why = undoTable(card, ending.own(), queues);
      if (why !== null) left.push(why);
    } catch (thrown) {
      failed.push(messageOf(thrown));
    }
  }
  const undone = undoSteps(card, ending.own(), when, ending.note);
  return { left: [...left, ...undone.left], failed: [...failed, ...undone.failed] };
}

/** Moves what concerns the whole card (features) to a lease that goes on: it undoes them when it ends. */
function inherit(from: OwnQueues, to: OwnQueues): { readonly from: OwnQueues; readonly to: OwnQueues } {
  let [left, heir] = [from, to];
  for (const [at, step] of from.steps.entries()) {
    if (step.when !== "before" || from.states[at] !== "applied") continue;
    heir = { ...heir, steps: [step, ...heir.steps], states: ["applied", ...heir.states] };
    left = marked(left, at, "undone");
  }
  return { from: left, to: heir };
}

function tableStep(
  { ifindex, name }: CardPlace,
  before: TableBefore,
  table: readonly number[],
  back: readonly number[] | null,
  words: string,
): Step {
  return {
    device: { ifindex, name },
    when: "before",
    apply: { kind: "rss", indirection: table },
    undo: { kind: "rss", indirection: back },
    was: { kind: "rss", indirection: before.table },
    words,
  };
}

function marked(own: OwnQueues, at: number, state: StepState): OwnQueues {
  return { ...own, states: own.states.map((each, i) => (i === at ? state : each)) };
}

function same(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((queue, i) => queue === b[i]);
}
