// Filters over the kernel's packet buffers: for tc ingress, for AF_PACKET sockets, and the mark of passed frames.
import type { ProgramSource } from "../../kernel.js";
import type { Filter } from "./compile.js";
import { Assembler, R } from "./ebpf.js";
import {
  A,
  CONTEXT,
  copyPrefix,
  LENGTH,
  loadStack,
  loadThroughHelper,
  TAG_FLAG,
  translate,
  type FrameAccess,
} from "./translate.js";

/** Offsets in struct __sk_buff (linux/bpf.h). */
export const SKB = { len: 0, vlanPresent: 20, vlanTci: 24, vlanProto: 28, tcIndex: 44 } as const;
/** Verdicts of tc (linux/pkt_cls.h); TCX_NEXT and TCX_DROP have the same values. */
export const TC_ACT_UNSPEC = -1;
export const TC_ACT_SHOT = 2;
/** Value of skb->tc_index of a frame that was passed back to the kernel: filters let it through. */
export const PASS_MARK = 0xb1f0;
/** Value of a socket filter for a match: keep as many bytes as there are. */
const KEEP_ALL = 0x40000;

/** Where the tag was before the kernel put it into the metadata: behind the two addresses. */
const TAG_AT = 12;
const TAG_SIZE = 4;
const BEHIND_TAG = TAG_AT + TAG_SIZE;

/**
 * The frame as it was on the wire: a VLAN tag that the kernel (or the card) took out and put into the metadata
 * counts as if it still stood there.
 */
export const SKB_ACCESS: FrameAccess = {
  minimumPrefix: 24,
  prologue(asm, buffer, prefix, reject) {
    const untagged = asm.label("untagged");
    const ready = asm.label("ready");
    asm.load(LENGTH, CONTEXT, SKB.len, 4);
    asm.load(R.r7, CONTEXT, SKB.vlanPresent, 4);
    asm.store(R.fp, TAG_FLAG, R.r7, 4);
    asm.jump64("eq", R.r7, 0, untagged);
    // Addresses, tag, the rest. r8 counts the bytes behind the tag.
    copyPrefix(asm, "skb_load_bytes", { from: 0, to: buffer, count: TAG_AT, available: LENGTH }, reject);
    asm.load(R.r7, CONTEXT, SKB.vlanProto, 4);
    asm.store(R.fp, buffer + TAG_AT, R.r7, 2);
    asm.load(R.r7, CONTEXT, SKB.vlanTci, 4);
    asm.bigEndian(R.r7, 16);
    asm.store(R.fp, buffer + TAG_AT + 2, R.r7, 2);
    asm.move(R.r8, LENGTH);
    asm.jump64("lt", R.r8, TAG_AT, reject);
    asm.alu64("sub", R.r8, TAG_AT);
    asm.alu64("add", LENGTH, TAG_SIZE);
    const rest = { from: TAG_AT, to: buffer + BEHIND_TAG, count: prefix - BEHIND_TAG, available: R.r8 };
    copyPrefix(asm, "skb_load_bytes", rest, reject);
    asm.goto(ready);
    asm.place(untagged);
    copyPrefix(asm, "skb_load_bytes", { from: 0, to: buffer, count: prefix, available: LENGTH }, reject);
    asm.place(ready);
  },
  loadComputed(asm, size, buffer, reject) {
    const direct = asm.label("direct");
    const behind = asm.label("behind the tag");
    const done = asm.label("loaded");
    asm.load(R.r3, R.fp, TAG_FLAG, 4);
    asm.jump64("eq", R.r3, 0, direct);
    asm.jump64("ge", R.r2, BEHIND_TAG, behind);
    asm.jump64("le", R.r2, TAG_AT - size, direct);
    // The few offsets that touch the tag: the stack can only be read at constant ones.
    for (let offset = TAG_AT - size + 1; offset < BEHIND_TAG; offset++) {
      const next = asm.label("next");
      asm.jump64("ne", R.r2, offset, next);
      loadStack(asm, A, buffer + offset, size);
      asm.goto(done);
      asm.place(next);
    }
    asm.goto(reject);
    asm.place(behind);
    asm.alu64("sub", R.r2, TAG_SIZE);
    asm.place(direct);
    loadThroughHelper(asm, "skb_load_bytes", size, reject);
    asm.place(done);
  },
};

/** Ends with that verdict. */
export function returns(asm: Assembler, value: number): void {
  asm.constant(R.r0, value);
  asm.exit();
}

/**
 * A program for tc ingress (or tcx) that drops the kernel's copy of the flow: AF_PACKET only taps. Frames that
 * carry the pass mark go on, whatever they are.
 */
export function tcDropProgram(filter: Filter): ProgramSource {
  const { instructions, maps } = translate(filter, {
    access: SKB_ACCESS,
    before(asm) {
      const unmarked = asm.label("unmarked");
      asm.load(R.r2, CONTEXT, SKB.tcIndex, 4);
      asm.jump64("ne", R.r2, PASS_MARK, unmarked);
      returns(asm, TC_ACT_UNSPEC);
      asm.place(unmarked);
    },
    match: (asm) => returns(asm, TC_ACT_SHOT),
    pass: (asm) => returns(asm, TC_ACT_UNSPEC),
  });
  return { type: "sched-cls", name: "bifurcate_drop", instructions, maps };
}

/**
 * A filter for an AF_PACKET socket, whose own frames need no tag put back: the verdict is that on the frame as it
 * was on the wire. Frames that carry the pass mark are not taken again.
 */
export function socketFilterProgram(filter: Filter): ProgramSource {
  const { instructions, maps } = translate(filter, {
    access: SKB_ACCESS,
    before(asm) {
      const unmarked = asm.label("unmarked");
      asm.load(R.r2, CONTEXT, SKB.tcIndex, 4);
      asm.jump64("ne", R.r2, PASS_MARK, unmarked);
      returns(asm, 0);
      asm.place(unmarked);
    },
    match: (asm) => returns(asm, KEEP_ALL),
    pass: (asm) => returns(asm, 0),
  });
  return { type: "socket-filter", name: "bifurcate_tap", instructions, maps };
}

/** For the TAP that passed frames come from: marks each, and lets it go on. */
export function passMarkProgram(): ProgramSource {
  const asm = new Assembler();
  asm.constant(R.r2, PASS_MARK);
  asm.store(R.r1, SKB.tcIndex, R.r2, 4);
  returns(asm, TC_ACT_UNSPEC);
  const { instructions, maps } = asm.finish();
  return { type: "sched-cls", name: "bifurcate_mark", instructions, maps };
}
