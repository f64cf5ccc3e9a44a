// A split as a transaction: journal, settings, sockets and program, rules; and all of it back.
import { randomBytes } from "node:crypto";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BifurcateError, wrapError } from "../errors.js";
import { bootId, ownIdentity, type ProcessIdentity } from "../facts/processes.js";
import { launchGuardian, type GuardianHandle, type LaunchGuardian } from "../guardian/launch.js";
import { launchSweeper } from "../guardian/sweeper.js";
import type { Kernel } from "../kernel.js";
import type { Plan, Step } from "../steering/plan.js";
import { checkCapabilities, type PreparedSplit } from "../prepare.js";
import { applyStep, checkStep } from "./change.js";
import { journalPath, writeJournal, type Journal, type StepState } from "./journal.js";
import { locateDevice } from "./locate.js";
import { splitsOn } from "./registry.js";
import { Undo, type UndoReport } from "./undo.js";

/** What the owner does between the settings. All of it goes with the process, so none of it is journaled. */
export interface TransactionHooks {
  /** Opens the sockets, loads and attaches the program. Runs before flows are steered to the queues. */
  open?(): void | Promise<void>;
  /** Takes away what open() made, as far as it got. Runs after flows are steered back. Must not throw twice. */
  close?(): void | Promise<void>;
  /** The live split was not confirmed in time: the owner is to end it, within 5 seconds. */
  expired?(): void;
  /** The guardian died and cannot be started again: from here on a crash leaves settings behind. */
  guardianLost?(error: BifurcateError): void;
}

export interface TransactionOptions {
  /** How a guardian is started; tests put another in its place. */
  readonly launch?: LaunchGuardian;
  /** The split's name, where it goes on under the one that it had; a new one when left out. */
  readonly id?: string | undefined;
}

/** The marker that confirms a split from another process. */
export function confirmationPath(directory: string, id: string): string {
  return join(directory, `${id}.confirmed`);
}

/** A guardian that dies more often than this is not started again. */
const DEATHS = 5;
const DEATHS_MS = 10_000;

/** A name for a split that is short enough to type: the interface and four hex digits. */
function newId(plan: Plan): string {
  return `${plan.device.name.replace(/[^A-Za-z0-9_-]/g, "_")}-${randomBytes(3).toString("hex")}`;
}

/** One split's changes, from the first to the last undone. apply() once, then undo() once or more. */
export class SplitTransaction {
  /** The split's name in the journal, in `bifurcate release` and in errors. */
  readonly id: string;
  readonly plan: Plan;
  readonly #kernel: Kernel;
  readonly #prepared: PreparedSplit;
  readonly #launch: LaunchGuardian;
  #journal: Journal;
  #hooks: TransactionHooks = {};
  #guardian: GuardianHandle | null = null;
  /** Ends the one who removes the record of a dead owner, as long as there is no guardian. */
  #endSweeper: (() => void) | null = null;
  #state: "new" | "applying" | "live" | "done" = "new";
  #undoing: Promise<UndoReport> | null = null;
  /** Its time to be confirmed ran out while it was being applied. */
  #overdue = false;

  constructor(kernel: Kernel, prepared: PreparedSplit, options: TransactionOptions = {}) {
    this.#kernel = kernel;
    this.#prepared = prepared;
    this.#launch = options.launch ?? launchGuardian;
    this.plan = prepared.plan;
    this.id = options.id ?? newId(prepared.plan);
    this.#journal = {
      version: 1,
      id: this.id,
      created: new Date().toISOString(),
      bootId: bootId(),
      owner: ownIdentity(),
      guardian: null,
      netns: { path: prepared.netnsPath, inode: prepared.netns.inode },
      plan: prepared.plan,
      steps: prepared.plan.steps.map(() => "pending"),
      confirmBy: null,
    };
  }

  /** The guardian's process, null where the split needs none. */
  get guardian(): ProcessIdentity | null {
    return this.#journal.guardian;
  }

  /**
   * Applies the plan; when it returns, the split is live. On an error everything that was done is undone
   * first. Errors: E_NOT_PRIVILEGED, E_JOURNAL, E_GUARDIAN, E_FLOW_TAKEN, E_SETTING_REFUSED, E_NOT_VERIFIED,
   * E_INTERFACE_GONE, E_NOT_CONFIRMED when that time was over before it was live (where hooks.open() is still at it 5 s
   * later, the guardian ends this process), and whatever hooks.open() throws.
   */
  async apply(hooks: TransactionHooks = {}): Promise<void> {
    if (this.#state !== "new") {
      throw new BifurcateError("E_INTERNAL", { what: "apply a split", why: "it was applied before" });
    }
    checkCapabilities(this.plan, this.#prepared.facts.capabilities);
    this.#state = "applying";
    this.#hooks = hooks;
    const seconds = this.plan.confirmSeconds;
    // Before there is a record, so that there is never one without it; a guardian takes over before anything is changed.
    this.#endSweeper = launchSweeper(journalPath(this.#prepared.stateDirectory, this.id));
    try {
      this.#write({ confirmBy: seconds === null ? null : Date.now() + seconds * 1000 });
    } catch (thrown) {
      this.#endSweeping();
      throw thrown;
    }
    try {
      this.#yieldToOthers();
      if (this.plan.guardian) {
        await this.#startGuardian();
        this.#endSweeping();
      }
      this.#applySteps("before");
      this.#checkTime();
      await hooks.open?.();
      this.#applySteps("after");
      this.#checkTime();
      this.#state = "live";
    } catch (thrown) {
      const error = wrapError(thrown, `split ${this.plan.device.name}`);
      await this.undo().catch((incomplete: unknown) => {
        throw new BifurcateError("E_UNDO_INCOMPLETE", {
          what: `undo the split of ${this.plan.device.name} after "${error.message}"`,
          why: wrapError(incomplete, "undo").why,
          cause: error,
        });
      });
      throw error;
    }
  }

  /**
   * Undoes everything, rules first, then sockets and program (hooks.close), then the other settings. Safe to
   * call at any time and more than once; after E_UNDO_INCOMPLETE it may be called again.
   */
  undo(): Promise<UndoReport> {
    this.#undoing ??= this.#undo().catch((thrown: unknown) => {
      this.#undoing = null;
      throw thrown;
    });
    return this.#undoing;
  }

  /** Makes steps again that the card lost (a driver reset, say), by their place in the plan. Errors as apply(). */
  repair(steps: readonly number[]): void {
    if (this.#state !== "live") return;
    for (const i of steps) {
      const step = this.plan.steps[i];
      if (step !== undefined) applyStep(this.#prepared.netns, this.#nameOf(step), step);
    }
  }

  /** Seconds left to confirm it; null where it is confirmed, from wherever, or need not be. */
  get unconfirmedSeconds(): number | null {
    const { confirmBy } = this.#journal;
    if (confirmBy === null || existsSync(confirmationPath(this.#prepared.stateDirectory, this.id)))
      return null;
    return Math.max(0, (confirmBy - Date.now()) / 1000);
  }

  /** The split may stay: it no longer undoes itself. */
  confirm(): void {
    if (this.#journal.confirmBy === null) return;
    confirmSplit(this.#prepared.stateDirectory, this.id);
    this.#write({ confirmBy: null });
    this.#guardian?.confirmed();
  }

  async #undo(): Promise<UndoReport> {
    const { netns, stateDirectory } = this.#prepared;
    const undo = new Undo(this.#kernel, netns, stateDirectory, this.#journal);
    try {
      await undo.steps("after");
      let closing: unknown = null;
      try {
        await this.#hooks.close?.();
      } catch (thrown) {
        closing = thrown; // the settings come first
      }
      // To take away a function that a handler still has would wait for it, in the kernel and for ever: it stays until
      // the handler is done and this is called again, or until this process has ended.
      const held = closing instanceof BifurcateError && closing.code === "E_HANDLER_HANGS";
      if (held && this.plan.path.kind === "virtual-function") throw closing;
      await undo.steps("before");
      const report = undo.finish();
      forgetConfirmation(stateDirectory, this.id);
      if (closing !== null) throw wrapError(closing, `close the sockets of ${this.plan.device.name}`);
      return report;
    } finally {
      this.#journal = undo.journal;
      this.#state = "done";
      // A guardian finds the journal gone and ends, or finds it there and tries once this process has ended.
      this.#guardian?.dismiss();
      this.#guardian = null;
      this.#endSweeping();
    }
  }

  #checkTime(): void {
    if (!this.#overdue) return;
    throw new BifurcateError("E_NOT_CONFIRMED", {
      what: `split ${this.plan.device.name}`,
      why: "the time in which to confirm it was over before it was live",
      next: "Give it more time to be confirmed.",
    });
  }

  #endSweeping(): void {
    this.#endSweeper?.();
    this.#endSweeper = null;
  }

  #applySteps(when: Step["when"]): void {
    this.plan.steps.forEach((step, i) => {
      if (step.when !== when) return;
      const ifname = this.#nameOf(step);
      checkStep(ifname, step);
      this.#mark(i, "applying");
      applyStep(this.#prepared.netns, ifname, step);
      this.#mark(i, "applied");
    });
  }

  /** The step's device by its number: it may have been renamed since the plan was made. */
  #nameOf(step: Step): string {
    const { netns } = this.#prepared;
    const own = step.device.ifindex === this.plan.device.ifindex;
    const link = own
      ? locateDevice(this.#kernel, netns, this.#journal)?.link
      : netns.links().find((each) => each.index === step.device.ifindex);
    if (link !== undefined) return link.name;
    throw new BifurcateError("E_INTERFACE_GONE", {
      what: `${step.words} on ${step.device.name}`,
      why: "the interface no longer exists in its namespace",
    });
  }

  /** Two splits planned at the same moment do not know of each other: whoever sees the other's journal gives way. */
  #yieldToOthers(): void {
    const { stateDirectory, facts, netns } = this.#prepared;
    const known = new Set([this.id, ...facts.otherSplits.map((each) => each.id)]);
    const others = splitsOn(stateDirectory, netns.inode, this.plan.device.ifindex);
    const other = others.find((each) => !known.has(each.id));
    if (other === undefined) return;
    throw new BifurcateError("E_FLOW_TAKEN", {
      what: `split ${this.plan.device.name}`,
      why: `the split ${other.id} (pid ${other.pid}) was started on it at the same moment`,
      next: "Split again: the next plan takes the other split into account.",
      data: { split: other.id, pid: other.pid, sameMoment: true },
    });
  }

  async #startGuardian(): Promise<void> {
    const deaths: number[] = [];
    const launch = (): Promise<GuardianHandle> =>
      this.#launch({
        directory: this.#prepared.stateDirectory,
        id: this.id,
        expired: () => {
          if (this.#state === "applying") this.#overdue = true;
          else this.#hooks.expired?.();
        },
        died: () => {
          if (this.#guardian === null) return;
          this.#guardian = null;
          const lost = (thrown: unknown): void =>
            this.#hooks.guardianLost?.(wrapError(thrown, "start the guardian again", "E_GUARDIAN"));
          const now = Date.now();
          if (deaths.unshift(now) > DEATHS && now - (deaths[DEATHS] ?? 0) < DEATHS_MS) {
            const why = `it died ${DEATHS + 1} times within ${DEATHS_MS / 1000} s`;
            return lost(new BifurcateError("E_GUARDIAN", { what: "keep a guardian", why }));
          }
          launch().then(adopt, lost);
        },
      });
    const adopt = (handle: GuardianHandle): void => {
      if (this.#state === "done") return handle.dismiss();
      this.#guardian = handle;
      try {
        this.#write({ guardian: handle.identity });
      } catch {
        // The new guardian works without being written down; a listing calls the split stale a little earlier.
      }
    };
    const handle = await launch();
    this.#guardian = handle;
    this.#write({ guardian: handle.identity });
  }

  #mark(index: number, state: StepState): void {
    const steps = this.#journal.steps.map((each, i) => (i === index ? state : each));
    // "applied" is known before it is on disk: should the disk refuse it, the undo still knows of the step.
    if (state === "applied") this.#journal = { ...this.#journal, steps };
    this.#write({ steps });
  }

  #write(change: Partial<Journal>): void {
    const journal = { ...this.#journal, ...change };
    writeJournal(this.#prepared.stateDirectory, journal);
    this.#journal = journal;
  }
}

/** Removes the marker, if there is one. It is harmless where it stays. */
export function forgetConfirmation(directory: string, id: string): void {
  try {
    rmSync(confirmationPath(directory, id), { force: true });
  } catch {
    // No directory, no marker.
  }
}

/** Confirms a split, from any process. Errors: E_JOURNAL. */
export function confirmSplit(directory: string, id: string): void {
  try {
    writeFileSync(confirmationPath(directory, id), "", { mode: 0o600 });
  } catch (thrown) {
    throw wrapError(thrown, `confirm the split ${id}`, "E_JOURNAL");
  }
}
