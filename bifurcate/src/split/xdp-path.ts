// The AF_XDP path of a split: pool and sockets, the map that names them, the program that fills it.

import { openAfXdp } from "@bifurcate/addon";
import { BifurcateError, messageOf } from "@bifurcate/control/errors";
import type { Attachment, BpfMap, Program } from "@bifurcate/control/kernel";
import { xdpMetadata, type Hint } from "@bifurcate/control/steering/metadata";
import { driverNotes } from "@bifurcate/control/steering/drivers";
import { receiveQueues, transmitQueues } from "@bifurcate/control/steering/make-plan";
import { compileAny, xdpProgram, type XdpSource } from "@bifurcate/control/steering/rules/index";
import type { NativePort } from "../native.js";
import { FRAMES_A_QUEUE, FRAME_SIZE, poolFrames } from "../pool.js";
import { linkIsBack } from "./link.js";
import { AttachedPath, JUMBO_FRAMES_A_QUEUE, openPass, tapOf, withTap } from "./path.js";
import { asRefusal, Refused } from "./refused.js";

/** Entries of each ring. */
const RING_SIZE = 2048;
/** The AF_XDP map may have any number of keys; drivers stop at a few hundred queues. */
const MAP_ENTRIES = 256;

/** Opens and closes the AF_XDP path; the plan says how. */
export class XdpPath extends AttachedPath {
  /** What the program asks the driver of each frame. */
  private hints: readonly Hint[] = this.plan.path.hints;
  queues: readonly number[] = this.plan.path.queues;
  /** How many queues of the card send; null where it does not say. */
  private senders: number | null = null;
  private map: BpfMap | undefined;
  private program: Program | undefined;

  /**
   * Map, program, sockets, then the attachment: from that moment on frames arrive, or, where attaching takes the link
   * down, when it is back. Where attaching brings queues along it comes first, for they want sockets too: the kernel
   * has every frame until its queue's socket is in the map.
   * @throws Refused where another way may do; E_QUEUE_BUSY, E_NO_ZERO_COPY, E_NO_MEMORY, E_NOT_VERIFIED.
   */
  async open(): Promise<void> {
    const { device, path } = this.plan;
    const mode = path.mode ?? "driver";
    const way = { backend: "af_xdp", mode } as const;
    this.map = asRefusal(way, () =>
      this.kernel.createMap({
        type: "xskmap",
        name: "bifurcate",
        keySize: 4,
        valueSize: 4,
        maxEntries: MAP_ENTRIES,
      }),
    );
    this.program = asRefusal(way, () => this.load());
    // Before the program comes: the queues that a driver adds for it send no frame of a socket, and are counted then.
    this.senders = path.lease === null ? this.senderCount() : null;
    if (mode === "driver" && driverNotes(device.driver).changesQueues === true) {
      const before = this.queueCount();
      this.attachFirst();
      // A list that leaves queues out is the user's, and stays.
      if (path.queues.length === before) this.queues = Array.from({ length: this.queueCount() }, (_, i) => i);
    }
    this.native = asRefusal(way, () => this.openSockets(mode));
    const { senders } = this;
    if (senders !== null && this.queues.every((queue) => queue >= senders)) {
      this.notes.push(`nothing can be sent: ${device.name} sends by its queues below ${senders} alone`);
    }
    // Frames come on the card's queue; a socket on its lease says that queue's number there.
    for (const { queue, fd } of this.native.sockets()) {
      this.map.update(word(path.lease === null ? queue : this.queues[queue - 1]!), word(fd));
    }
    openPass(this, this.plan, this.options, mode === "generic");
    if (this.attachment === undefined) this.attachFirst();
    this.verify(device.ifindex);
    if (device.carrier && !(await linkIsBack(this.netns, device.ifindex))) {
      this.notes.push(`${device.name} has no link since the program was attached`);
    }
  }

  /** A driver may refuse a program that is bound to it, and take the same one unbound. */
  private attachFirst(): void {
    try {
      this.attach();
    } catch (thrown) {
      if (this.hints.length === 0 || !(thrown instanceof Refused)) throw thrown;
      this.giveUpHints(thrown.message);
      this.program!.close();
      this.program = this.load();
      this.attach();
    }
  }

  /** Loads the program: with what it asks the driver, without that where kernel or driver refuse it. */
  private load(): Program {
    const { device, flows, path } = this.plan;
    const make = (): XdpSource => ({
      ...xdpProgram(compileAny(flows), { map: this.map!, hints: this.hints }),
      fragments: path.fragments,
    });
    if (this.hints.length > 0) {
      const { calls, ...source } = make();
      try {
        return this.netns.loadBoundProgram(source as never, device.ifindex, calls);
      } catch (thrown) {
        this.giveUpHints(messageOf(thrown));
      }
    }
    return this.kernel.loadProgram(make());
  }

  private giveUpHints(why: string): void {
    const [first] = why.split("\n");
    this.notes.push(`no ${this.hints.join(", ")} from the driver: ${first}`);
    const refused = xdpMetadata([], () => "the kernel refused the program that asks the driver");
    const asked = this.hints.map((hint) => [hint, refused[hint]] as const);
    this.metadata = { ...this.plan.path.metadata, ...Object.fromEntries(asked) };
    this.hints = [];
  }

  /** Attaches the program; again, when it was lost. */
  attach(): void {
    const { device, path } = this.plan;
    const mode = path.mode ?? "driver";
    this.detach();
    const attach = (): Attachment => this.netns.attachXdp(this.program as never, device.ifindex, mode);
    const way = { backend: "af_xdp", mode } as const;
    try {
      this.attachment = asRefusal(way, attach);
    } catch (thrown) {
      throw this.explainBusy(thrown);
    }
  }

  override async close(): Promise<void> {
    await super.close();
    this.program?.close();
    this.map?.close();
    this.program = undefined;
    this.map = undefined;
  }

  /** Receive queues of the card now. */
  private queueCount(): number {
    const { name } = this.plan.device;
    const channels = this.netns.channels(name)?.now;
    return channels === undefined ? this.plan.path.queues.length : Math.max(1, receiveQueues(channels));
  }

  /** Transmit queues of the card now. */
  private senderCount(): number | null {
    const channels = this.netns.channels(this.plan.device.name)?.now;
    return channels === undefined ? null : Math.max(1, transmitQueues(channels));
  }

  private openSockets(mode: "driver" | "generic"): NativePort {
    const { device, path } = this.plan;
    const { queues } = this;
    const { frames = FRAMES_A_QUEUE, busyPoll = false, pages = "auto" } = this.options;
    const jumboFrames = path.multiBuffer ? JUMBO_FRAMES_A_QUEUE * queues.length : 0;
    const wanted = {
      ifname: path.lease ?? device.name,
      queues: path.lease === null ? [...queues] : queues.map((_, i) => i + 1),
      ...(this.senders === null ? {} : { senders: this.senders }),
      frames: poolFrames(`split ${device.name}`, frames, queues.length, jumboFrames),
      frameSize: FRAME_SIZE,
      jumboFrames,
      zeroCopy: path.zeroCopy,
      mode,
      busyPoll,
      metadata: this.hints.length > 0,
      pages,
      ...tapOf(this.options),
      ringSize: RING_SIZE,
    };
    try {
      return withTap(this.options, () => openAfXdp(this.netns, wanted));
    } catch (thrown) {
      const code = (thrown as { code?: unknown }).code;
      const what = `open AF_XDP sockets on ${device.name}`;
      if (code === "EBUSY") {
        throw new BifurcateError("E_QUEUE_BUSY", { what, why: messageOf(thrown), cause: thrown });
      }
      if (path.zeroCopy === "require" && (code === "EOPNOTSUPP" || code === "EINVAL")) {
        throw new BifurcateError("E_NO_ZERO_COPY", { what, why: messageOf(thrown), cause: thrown });
      }
      throw thrown;
    }
  }

  private verify(ifindex: number): void {
    const link = this.netns.links().find(({ index }) => index === ifindex);
    const id = link?.xdp?.programId;
    if (id === this.program!.id) return;
    throw new BifurcateError("E_NOT_VERIFIED", {
      what: `attach an XDP program to ${this.plan.device.name}`,
      why: `the card says that it runs ${id === undefined ? "none" : `program ${id}`}, not ${this.program!.id}`,
    });
  }

  private explainBusy(thrown: unknown): unknown {
    const code = (thrown as { code?: unknown }).code;
    if (code !== "EBUSY" && code !== "EEXIST") return thrown;
    return new BifurcateError("E_FOREIGN_XDP", {
      what: `attach an XDP program to ${this.plan.device.name}`,
      why: messageOf(thrown),
      cause: thrown,
    });
  }
}

/** A 32-bit number in the machine's order, as bpf(2) takes keys and values. */
function word(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}
