// The AF_PACKET path of a split: a tap on the card, and the kernel's own copy of the flow dropped at tc ingress.

import { openAfPacket } from "@bifurcate/addon";
import type { Program } from "@bifurcate/control";
import { compileAny, socketFilterProgram, tcDropProgram } from "@bifurcate/control/steering/rules/index";
import { AttachedPath, JUMBO_FRAMES_A_QUEUE, openPass, tapOf } from "./path.js";
import { asRefusal } from "./refused.js";

const FRAMES_A_QUEUE = 4096;

/** Opens and closes the AF_PACKET path. */
export class PacketPath extends AttachedPath {
  private filter: Program | undefined;
  private drop: Program | undefined;

  /** Sockets first, so that no frame falls between the tap and the drop. @throws Refused, E_NO_PASS. */
  open(): void {
    const { device, path, flows } = this.plan;
    const way = { backend: "af_packet", mode: null } as const;
    const { frames = FRAMES_A_QUEUE, pages = "auto" } = this.options;
    const filter = compileAny(flows);
    this.filter = asRefusal(way, () => this.kernel.loadProgram(socketFilterProgram(filter)));
    this.drop = asRefusal(way, () => this.kernel.loadProgram(tcDropProgram(filter)));
    const wanted = {
      ifname: device.name,
      queues: path.queues.length,
      frames: frames * path.queues.length,
      frameSize: 2048,
      // Packet sockets see what the kernel joined on receipt, whatever the MTU.
      jumboFrames: JUMBO_FRAMES_A_QUEUE * path.queues.length,
      hash: path.hints.includes("hash"),
      pages,
      ...tapOf(this.options),
    };
    this.native = asRefusal(way, () => openAfPacket(this.netns, wanted, this.filter as never));
    openPass(this, this.plan, this.options, false);
    this.attach();
  }

  get queues(): readonly number[] {
    return this.plan.path.queues;
  }

  attach(): void {
    const { ifindex } = this.plan.device;
    const step = this.plan.steps.find(({ apply }) => apply.kind === "ingress-filter")?.apply;
    const filter = step?.kind === "ingress-filter" ? step.name : undefined;
    this.detach();
    this.attachment = asRefusal({ backend: "af_packet", mode: null }, () =>
      this.netns.attachTcIngress(this.drop as never, ifindex, filter),
    );
  }

  override async close(): Promise<void> {
    await super.close();
    this.filter?.close();
    this.drop?.close();
    this.filter = undefined;
    this.drop = undefined;
  }
}
