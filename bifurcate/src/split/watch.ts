// Looks at a running split when its card changes and now and then: repairs what was lost, says what cannot be.

import {
  BifurcateError,
  decide,
  observe,
  wrapError,
  type Observation,
  type Plan,
  type PreparedSplit,
  type Repair,
  type SplitTransaction,
} from "@bifurcate/control";
import type { AddonNetns, SplitPath } from "./path.js";

/** Milliseconds between two looks: rules and tables change without an event. */
const LOOK_MS = 2_000;

/** Whom the watch tells. */
export interface WatchEvents {
  warn(text: string): void;
  /** The split cannot go on. */
  fail(error: Error): void;
}

/** The watch of one split. */
export class SplitWatch {
  private readonly plan: Plan;
  private before: Observation | undefined;
  private timer: NodeJS.Timeout | undefined;
  private events: { close(): void } | undefined;
  private readonly repaired: number[] = [];
  private said = "";

  constructor(
    private readonly transaction: SplitTransaction,
    private readonly prepared: PreparedSplit,
    private readonly way: SplitPath,
    private readonly netns: AddonNetns,
    private readonly told: WatchEvents,
  ) {
    this.plan = prepared.plan;
  }

  /** Begins to look. */
  start(): void {
    this.before = this.look();
    this.timer = setInterval(() => this.again(), LOOK_MS);
    this.timer.unref();
    const { ifindex } = this.plan.device;
    this.events = this.netns.watchLinks((event) => {
      if (event.ifindex === ifindex && this.timer !== undefined) this.again();
    });
  }

  /** Looks no more. */
  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.events?.close();
    this.events = undefined;
  }

  private look(): Observation {
    return observe(this.prepared.netns, this.plan, { attached: this.way.attached, deadQueues: [] });
  }

  private again(): void {
    try {
      this.act();
    } catch (thrown) {
      this.end(wrapError(thrown, `watch the split of ${this.plan.device.name}`, "E_CHANGED_UNDERNEATH"));
    }
  }

  private act(): void {
    const now = this.look();
    if (now.link !== null) this.way.native?.followCard();
    const memory = { queues: this.plan.path.queues, repaired: this.repaired };
    const decision = decide(this.plan, this.before!, now, memory);
    if (decision.do === "nothing") {
      this.said = "";
      return;
    }
    if (decision.do === "wait") return this.say(decision.why);
    if (decision.do === "repair") {
      this.say(decision.why);
      for (const repair of decision.repairs) this.repair(repair);
      return;
    }
    const what = `keep the split of ${this.plan.device.name}`;
    const code = decision.do === "stop" ? decision.code : "E_CHANGED_UNDERNEATH";
    this.end(new BifurcateError(code, { what, why: decision.why }));
  }

  private repair(repair: Repair): void {
    if (repair.kind === "attach") this.way.attach();
    else if (repair.kind === "steps") {
      this.transaction.repair(repair.steps);
      this.repaired.push(...repair.steps);
    } else if (repair.kind === "open-queues") {
      this.say(
        `frames that arrive on queue ${repair.queues.join(", ")} stay with the kernel: split again to have them`,
      );
    }
  }

  private end(error: Error): void {
    this.stop();
    this.told.fail(error);
  }

  /** Says a thing once, until it is over. */
  private say(text: string): void {
    if (text === this.said) return;
    this.said = text;
    this.told.warn(text);
  }
}
