// A split that is live: opened, looked after, opened anew on a card that has changed too much, and ended.

import { takeQueue } from "@bifurcate/addon";
import { beginSplit, type BegunSplit } from "@bifurcate/control/begin";
import { BifurcateError, messageOf, wrapError } from "@bifurcate/control/errors";
import { findLink } from "@bifurcate/control/facts/facts";
import type { Kernel } from "@bifurcate/control/kernel";
import { openNetns, type PrepareOptions } from "@bifurcate/control/prepare";
import type { Refusal } from "@bifurcate/control/steering/plan";
import { Port, type PortPath } from "../port.js";
import type { SplitOptions } from "./options.js";
import { PacketPath } from "./packet-path.js";
import type { AddonNetns, SplitPath } from "./path.js";
import { Refused } from "./refused.js";
import { SplitWatch } from "./watch.js";
import { XdpPath } from "./xdp-path.js";

/** The ladder has three rungs: driver mode, generic mode, AF_PACKET. */
const STEPS_DOWN = 3;
/** A card that changes more often than this is left alone. */
const CHANGES = 10;
const CHANGES_MS = 60_000;
/** How long the frames that had arrived before the program was detached may wait in the rings. */
const DRAIN_MS = 20;
/** Two splits that begin at the same moment both give way: each tries again after a time that nobody knows. */
const MEETINGS = 4;
const MEETING_MS = 300;

/** What stands behind a port as long as its card stays as it is. */
interface Standing {
  readonly begun: BegunSplit;
  readonly way: SplitPath;
  readonly watch: SplitWatch;
}

/** What differs from the request when a split is opened anew. */
interface Anew {
  readonly ifname: string;
  readonly id?: string;
  readonly confirmSeconds: number | null;
}

/** One split, from its first opening to its end. */
export class LiveSplit {
  private standing: Standing | undefined;
  private port: Port | undefined;
  /** How the port's device is closed; none while an opening that failed is undone. */
  private shut: (() => Promise<void>) | undefined;
  private changing: Promise<void> | undefined;
  private ended = false;
  private confirmed = false;
  private readonly changes: number[] = [];
  private readonly said = new Set<string>();

  constructor(
    private readonly kernel: Kernel,
    private readonly ifname: string,
    private readonly options: SplitOptions,
  ) {}

  /** Opens it. @throws BifurcateError; nothing is changed then. */
  async open(): Promise<Port> {
    const { ifname } = this;
    const { confirmSeconds = null } = this.options;
    const standing = await this.stepDown({ ifname, confirmSeconds });
    this.standing = standing;
    try {
      this.port = this.portOver(standing);
      standing.watch.start();
    } catch (thrown) {
      await this.end(standing);
      throw wrapError(thrown, `split ${ifname}`);
    }
    return this.port;
  }

  private portOver(standing: Standing): Port {
    const { transaction } = standing.begun;
    return new Port(
      { native: standing.way.native!, name: transaction.plan.device.name, takeQueue },
      {
        path: pathOf(standing),
        id: transaction.id,
        bypasses: transaction.plan.bypasses,
        confirm: () => {
          this.confirmed = true;
          this.standing?.begun.transaction.confirm();
        },
        close: (shut) => this.close(shut),
      },
    );
  }

  /** Tells the caller. A callback that throws ends the split as a handler that throws does; it never breaks it. */
  private warn(text: string): void {
    try {
      this.options.onWarning?.(text);
    } catch (cause) {
      const what = `tell onWarning of the split of ${this.ifname}`;
      const error = new BifurcateError("E_HANDLER_THREW", {
        what,
        why: `it threw: ${messageOf(cause)}`,
        cause,
      });
      if (this.port === undefined) throw error;
      this.port.fail(error);
    }
  }

  /** What is true of the card, told once. */
  private warnOnce(texts: readonly string[]): void {
    for (const text of texts.filter((each) => !this.said.has(each))) {
      this.said.add(text);
      this.warn(text);
    }
  }

  private async close(shut: () => Promise<void>): Promise<void> {
    this.ended = true;
    await this.changing;
    this.shut = shut;
    const { standing } = this;
    if (standing === undefined) return shut();
    await this.end(standing);
  }

  /** Undoes what stands. Where that fails it still stands, and may be ended again. */
  private async end(standing: Standing): Promise<void> {
    const { begun, watch } = standing;
    watch.stop();
    await begun.transaction.undo();
    this.standing = undefined;
    begun.prepared.netns.close();
  }

  /** Opens the best way that the kernel does not refuse. */
  private async stepDown(anew: Anew): Promise<Standing> {
    const avoid: Refusal[] = [];
    for (let meetings = 0; ;) {
      try {
        return await this.attempt(anew, avoid);
      } catch (thrown) {
        if (metAnother(thrown) && ++meetings <= MEETINGS) {
          await new Promise((resolve) => setTimeout(resolve, Math.random() * MEETING_MS));
          continue;
        }
        const refused = refusalOf(thrown);
        if (refused === null || avoid.length >= STEPS_DOWN) throw wrapError(thrown, `split ${anew.ifname}`);
        avoid.push(refused);
      }
    }
  }

  private async attempt(anew: Anew, avoid: readonly Refusal[]): Promise<Standing> {
    const { id } = anew;
    const begun = await beginSplit(this.kernel, this.request(anew, avoid), { id });
    try {
      return await this.apply(begun);
    } catch (thrown) {
      begun.prepared.netns.close();
      throw thrown;
    }
  }

  private request({ ifname, confirmSeconds }: Anew, avoid: readonly Refusal[]): PrepareOptions {
    const { flows, netns, queues, backend, zeroCopy, mode, steering, force, tap, metadata } = this.options;
    return {
      ifname,
      flows: typeof flows === "string" ? [flows] : flows,
      netns,
      queues,
      backend,
      zeroCopy,
      mode,
      steering,
      force,
      metadata,
      tap: tap !== undefined && tap !== false,
      confirmSeconds,
      stateDirectory: this.options.stateDirectory,
      avoid,
    };
  }

  private async apply(begun: BegunSplit): Promise<Standing> {
    const { prepared, transaction } = begun;
    const { plan, netns } = prepared;
    const { kernel } = this;
    const options = { ...this.options, tapAppend: this.port !== undefined };
    // The control path knows the addon's namespaces by their interface alone.
    const own = netns as unknown as AddonNetns;
    const way: SplitPath =
      plan.path.backend === "af_xdp"
        ? new XdpPath(kernel, own, plan, options)
        : new PacketPath(kernel, own, plan, options);
    this.shut = undefined;
    await transaction.apply({
      open: () => way.open(),
      close: async () => {
        way.detach();
        try {
          await this.shut?.();
        } finally {
          await way.close();
        }
      },
      expired: () => {
        const what = `split ${plan.device.name}`;
        this.expire(new BifurcateError("E_NOT_CONFIRMED", { what, why: "it was not confirmed in time" }));
      },
      guardianLost: (error) => this.warn(`${error.message}; if this process dies now, settings stay behind`),
    });
    try {
      this.warnOnce(plan.warnings);
      const watch = new SplitWatch(transaction, prepared, way, own, {
        warn: (text) => this.warn(text),
        fail: (error) => this.port?.fail(error),
        changed: (why) => this.change(why),
      });
      return { begun, way, watch };
    } catch (thrown) {
      await transaction.undo();
      throw thrown;
    }
  }

  /** The card is another one now: the split is ended, and opened anew on what the card has become. */
  private change(why: string): void {
    if (this.changing !== undefined || this.ended) return;
    this.changing = this.anew(why)
      .catch((thrown: unknown) => {
        const { name } = this.port!;
        const error = wrapError(thrown, `split ${name}`);
        const { code, message } = error;
        // Its time ran out meanwhile: the end is the one that it has at any other moment.
        if (code === "E_NOT_CONFIRMED") return this.expire(error);
        this.port!.fail(
          new BifurcateError("E_CHANGED_UNDERNEATH", {
            what: `keep the split of ${name}`,
            why: `${why}, and it cannot be split anew: ${message} (${code})`,
            cause: thrown,
          }),
        );
      })
      .finally(() => {
        this.changing = undefined;
        this.port!.resume();
      });
  }

  /** Nobody confirmed it: what runs fails, and the port is closed. */
  private expire(error: BifurcateError): void {
    this.port?.fail(error);
    void this.port?.close().catch((thrown: unknown) => this.warn(String(thrown)));
  }

  private async anew(why: string): Promise<void> {
    const { standing, port } = this;
    if (standing === undefined || port === undefined) return;
    const { transaction } = standing.begun;
    const { ifindex } = transaction.plan.device;
    standing.watch.stop();
    // From here on the kernel has the flow; what had arrived before is still handled.
    standing.way.detach();
    this.checkPace(why);
    await new Promise((resolve) => setTimeout(resolve, DRAIN_MS));
    const confirmSeconds = transaction.unconfirmedSeconds;
    this.shut = () => port.suspend();
    await this.end(standing);
    if (this.ended) return;
    const ifname = this.nameOf(ifindex);
    const next = await this.stepDown({ ifname, id: transaction.id, confirmSeconds });
    this.standing = next;
    if (this.confirmed) next.begun.transaction.confirm();
    const path = pathOf(next);
    port.resume({ native: next.way.native!, path });
    next.watch.start();
    this.warn(
      `${why}: split anew, on ${path.queues.length === 1 ? "queue" : "queues"} ${path.queues.join(", ")}`,
    );
  }

  /** @throws E_CHANGED_UNDERNEATH when the card does not come to rest. */
  private checkPace(why: string): void {
    const now = Date.now();
    this.changes.unshift(now);
    if (now - (this.changes[CHANGES] ?? -Infinity) > CHANGES_MS) return;
    throw new BifurcateError("E_CHANGED_UNDERNEATH", {
      what: `keep the split of ${this.ifname}`,
      why: `the card changed more than ${CHANGES} times within ${CHANGES_MS / 1000} s, the last time: ${why}`,
    });
  }

  /** The card's name now. @throws E_INTERFACE_GONE */
  private nameOf(ifindex: number): string {
    const netns = openNetns(this.kernel, this.options.netns ?? null);
    try {
      const link = netns.links().find((each) => each.index === ifindex);
      return link === undefined ? findLink(netns.links(), this.ifname).name : link.name;
    } finally {
      netns.close();
    }
  }
}

/** Whether another split of the card was begun at the same moment. */
function metAnother(thrown: unknown): boolean {
  return thrown instanceof BifurcateError && thrown.data?.["sameMoment"] === true;
}

/** What the transaction threw, when it was a refused way; it may have been wrapped. */
function refusalOf(thrown: unknown): Refusal | null {
  for (let error = thrown; error instanceof Error; error = error.cause) {
    if (error instanceof Refused) return error.refusal;
  }
  return null;
}

/** The path that was obtained: what was planned, and what the kernel made of it. */
function pathOf({ begun, way }: Standing): PortPath {
  const { plan } = begun.prepared;
  const { path, ladder } = plan;
  const { obtained } = way.native!;
  const down = ladder
    .slice(
      0,
      ladder.findIndex((rung) => rung.taken),
    )
    .map((rung) => `no ${rung.name}: ${rung.why}`);
  return {
    backend: path.backend,
    queues: way.queues,
    mode: obtained.zeroCopy ? "zero-copy" : "copy",
    xdp: path.mode,
    steering: path.steering,
    obtained,
    metadata: way.metadata ?? path.metadata,
    notes: [
      ...down,
      ...plan.notes,
      ...obtained.refused.map((why) => `the kernel refused: ${why}`),
      ...way.notes,
    ],
  };
}
