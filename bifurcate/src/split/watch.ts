// Looks at a running split when its card changes and now and then: repairs what was lost, says what cannot be.

import { BifurcateError, wrapError } from "@bifurcate/control/errors";
import type { PreparedSplit } from "@bifurcate/control/prepare";
import type { Plan } from "@bifurcate/control/steering/plan";
import type { SplitTransaction } from "@bifurcate/control/transaction/transaction";
import { decide, type Repair } from "@bifurcate/control/watch/decide";
import { observe, type Observation } from "@bifurcate/control/watch/observe";
import type { AddonNetns, SplitPath } from "./path.js";

/** Milliseconds between two looks: rules and tables change without an event. */
const LOOK_MS = 2_000;

/** Whom the watch tells. */
export interface WatchEvents {
  warn(text: string): void;
  /** The split cannot go on; the kernel has the flow. */
  fail(error: Error): void;
  /** The split cannot go on as it is, and may in another way. */
  changed(why: string): void;
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
    const { queues } = this.way;
    // Sockets die all at once, with the device; one of the same number may have come back since.
    const deadQueues = this.way.native?.state() === "gone" ? queues : [];
    return observe(this.prepared.netns, this.plan, { attached: this.way.attached, deadQueues });
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
    const memory = { queues: this.way.queues, repaired: this.repaired };
    const decision = decide(this.plan, this.before!, now, memory);
    if (decision.do === "nothing") {
      this.said = "";
      return;
    }
    if (decision.do === "wait") return this.say(decision.why);
    // A port's queues and pool are made in one piece: other queues mean another port.
    const queues = (repair: Repair): boolean =>
      repair.kind === "open-queues" || repair.kind === "close-queues";
    if (decision.do === "replan" || (decision.do === "repair" && decision.repairs.some(queues))) {
      this.told.changed(decision.why);
      return;
    }
    if (decision.do === "repair") {
      this.say(decision.why);
      for (const repair of decision.repairs) this.repair(repair);
      return;
    }
    const what = `keep the split of ${this.plan.device.name}`;
    this.end(new BifurcateError(decision.code, { what, why: decision.why }));
  }

  private repair(repair: Repair): void {
    if (repair.kind === "attach") this.way.attach();
    else if (repair.kind === "steps") {
      this.transaction.repair(repair.steps);
      this.repaired.push(...repair.steps);
    }
  }

  private end(error: Error): void {
    this.stop();
    // Whoever owns the port may take a while to close it: the flow does not wait for that.
    this.way.detach();
    this.told.fail(error);
  }

  /** Says a thing once, until it is over. */
  private say(text: string): void {
    if (text === this.said) return;
    this.said = text;
    this.told.warn(text);
  }
}
