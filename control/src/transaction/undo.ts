// Undoes the steps of a split in reverse, whoever does it: its owner, its guardian, or a later command.
import { BifurcateError, errnoOf, messageOf } from "../errors.js";
import type { Kernel, Netns } from "../kernel.js";
import type { Step } from "../steering/plan.js";
import { undoStep, type Undone } from "./change.js";
import { removeJournal, writeJournal, type Journal, type StepState } from "./journal.js";
import { locateDevice } from "./locate.js";

/** What an undo did. */
export interface UndoReport {
  /** Steps that were undone, in words. */
  readonly undone: readonly string[];
  /** Settings left alone because somebody else changed them since, and why. */
  readonly left: readonly string[];
  /** The device no longer exists, so nothing of it is left to undo. */
  readonly deviceGone: boolean;
}

/** Answers that a retry may change: a dead owner's sockets are released a moment after it. */
const PASSING: ReadonlySet<string> = new Set(["EBUSY", "EINVAL", "EAGAIN", "ENOTEMPTY"]);
const RETRIES = 30;
const RETRY_MS = 100;

/** Steps that may have happened. */
function toUndo(state: StepState): boolean {
  return state === "applying" || state === "applied";
}

/** A journal being undone: remembers what is done, on disk as far as the disk allows. */
export class Undo {
  readonly #kernel: Kernel;
  readonly #home: Netns | null;
  readonly #directory: string;
  #journal: Journal;
  readonly #undone: string[] = [];
  readonly #left: string[] = [];
  readonly #failures: string[] = [];
  #deviceGone = false;

  /** `home` is the split's namespace, null where it no longer exists. */
  constructor(kernel: Kernel, home: Netns | null, directory: string, journal: Journal) {
    this.#kernel = kernel;
    this.#home = home;
    this.#directory = directory;
    this.#journal = journal;
  }

  get journal(): Journal {
    return this.#journal;
  }

  /** Undoes the steps of one kind, last first. A failure is kept for the end, so that the rest is undone. */
  async steps(when: Step["when"]): Promise<void> {
    const { steps } = this.#journal.plan;
    for (let i = steps.length - 1; i >= 0; i--) {
      const step = steps[i];
      const state = this.#journal.steps[i];
      if (step === undefined || state === undefined || step.when !== when || !toUndo(state)) continue;
      try {
        const result = await this.#one(step);
        if (result.state === "left") this.#left.push(result.why);
        else this.#undone.push(step.words);
        this.#mark(i, result.state);
      } catch (thrown) {
        this.#failures.push(`${step.words}: ${messageOf(thrown)}`);
      }
    }
  }

  /** Ends the undo: the journal goes where nothing is left; else it stays and E_UNDO_INCOMPLETE is thrown. */
  finish(): UndoReport {
    if (this.#failures.length > 0) {
      throw new BifurcateError("E_UNDO_INCOMPLETE", {
        what: `undo the split ${this.#journal.id} of ${this.#journal.plan.device.name}`,
        why: this.#failures.join("; "),
        data: { left: this.#failures },
      });
    }
    removeJournal(this.#directory, this.#journal.id);
    return { undone: this.#undone, left: this.#left, deviceGone: this.#deviceGone };
  }

  async #one(step: Step): Promise<Undone> {
    for (let attempt = 0; ; attempt++) {
      try {
        return this.#once(step);
      } catch (thrown) {
        if (attempt >= RETRIES || !PASSING.has(errnoOf(thrown) ?? "")) throw thrown;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  #once(step: Step): Undone {
    const found = this.#find(step);
    if (found === null) {
      this.#deviceGone = true;
      return { state: "undone" };
    }
    try {
      return undoStep(found.netns, found.name, step);
    } catch (thrown) {
      if (errnoOf(thrown) !== "ENODEV" || this.#find(step) !== null) throw thrown;
      this.#deviceGone = true;
      return { state: "undone" };
    } finally {
      if (found.opened) found.netns.close();
    }
  }

  #find(step: Step): { netns: Netns; name: string; opened: boolean } | null {
    if (step.apply.kind === "lease") {
      // The netkit device stays where it was made, wherever the card has gone.
      return this.#home === null ? null : { netns: this.#home, name: step.device.name, opened: false };
    }
    if (step.device.ifindex === this.#journal.plan.device.ifindex) {
      const found = locateDevice(this.#kernel, this.#home, this.#journal);
      return found === null ? null : { netns: found.netns, name: found.link.name, opened: found.opened };
    }
    const link = this.#home?.links().find((each) => each.index === step.device.ifindex);
    return this.#home === null || link === undefined
      ? null
      : { netns: this.#home, name: link.name, opened: false };
  }

  #mark(index: number, state: StepState): void {
    this.#journal = {
      ...this.#journal,
      steps: this.#journal.steps.map((each, i) => (i === index ? state : each)),
    };
    try {
      writeJournal(this.#directory, this.#journal);
    } catch {
      // A full disk must not stop an undo: each step finds out for itself whether it is done.
    }
  }
}

/** Undoes all steps of a journal whose owner is dead. */
export async function undoJournal(
  kernel: Kernel,
  home: Netns | null,
  directory: string,
  journal: Journal,
): Promise<UndoReport> {
  const undo = new Undo(kernel, home, directory, journal);
  await undo.steps("after");
  await undo.steps("before");
  return undo.finish();
}
