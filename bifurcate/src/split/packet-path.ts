// The AF_PACKET path of a split: a tap on the card, and the kernel's own copy of the flow dropped at tc ingress.

import { openAfPacket } from "@bifurcate/addon";
import type { Program } from "@bifurcate/control/kernel";
import { compileAny, socketFilterProgram, tcDropProgram } from "@bifurcate/control/steering/rules/index";
import { FRAMES_A_QUEUE, FRAME_SIZE, poolFrames } from "../pool.js";
import { AttachedPath, JUMBO_FRAMES_A_QUEUE, openPass, tapOf, withTap } from "./path.js";
import { asRefusal } from "./refused.js";

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
    // Packet sockets see what the kernel joined on receipt, whatever the MTU.
    const jumboFrames = JUMBO_FRAMES_A_QUEUE * path.queues.length;
    const wanted = {
      ifname: device.name,
      queues: path.queues.length,
      frames: poolFrames(`split ${device.name}`, frames, path.queues.length, jumboFrames),
      frameSize: FRAME_SIZE,
      jumboFrames,
      hash: path.hints.includes("hash"),
      pages,
      ...tapOf(this.options),
    };
    this.native = asRefusal(way, () =>
      withTap(this.options, () => openAfPacket(this.netns, wanted, this.filter as never)),
    );
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
