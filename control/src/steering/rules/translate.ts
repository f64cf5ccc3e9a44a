// Classic BPF to eBPF: the same verdict, in a form that verifies without CAP_PERFMON.
import { BifurcateError } from "../../errors.js";
import type { Size } from "./blocks.js";
import { Assembler, JumpTooFar, R, type Label, type Register } from "./ebpf.js";
import { MEMORY_WORDS, OP, opcodeName, type Instruction } from "./program.js";
import type { Filter } from "./compile.js";

/*
 * Registers:  r6 context   r7 A   r8 X   r9 length of the frame
 * Stack, downwards from fp:
 *    -64  M[0..15]
 *    -72  8 bytes: what a load from a computed offset reads, a map's key
 *    -80  4 bytes: a tag stands in the metadata (see skb.ts); 4 unused
 *    BUFFER: the first bytes of the frame, read at once. They start at an address that is 2 modulo 4, so that
 *    the fields of IP behind an Ethernet header can be read as whole words: the verifier wants stack accesses
 *    aligned.
 */
export const A = R.r7;
export const X = R.r8;
export const LENGTH = R.r9;
export const CONTEXT = R.r6;
const MEMORY = -64;
/** Stack offset of 8 bytes to read into. */
export const SCRATCH = -72;
/** Stack offset of 4 bytes: whether a VLAN tag stands in the metadata. */
export const TAG_FLAG = -80;
/** Fixed offsets up to this are read with the first bytes of the frame, in one call. */
const MAX_PREFIX = 256;

/** Offsets that no frame reaches. */
const FARTHEST = 0x7fffffff;

/** How a kind of program gets at its frame. */
export interface FrameAccess {
  /** At least this many first bytes are read. */
  readonly minimumPrefix: number;
  /**
   * Sets LENGTH, and copies the first min(prefix, length) bytes to the stack at `buffer`. Jumps to `reject` if that fails.
   */
  prologue(asm: Assembler, buffer: number, prefix: number, reject: Label): void;
  /**
   * A = `size` bytes, in host order, at the offset in r2 (64 bits); they lie within LENGTH. May use r0 to r5.
   */
  loadComputed(asm: Assembler, size: Size, buffer: number, reject: Label): void;
}

/** What comes before and after the filter. */
export interface Frame {
  readonly access: FrameAccess;
  /** After CONTEXT is set. */
  before?(asm: Assembler): void;
  /** Sets r0 and exits. */
  match(asm: Assembler): void;
  /** Sets r0 and exits. */
  pass(asm: Assembler): void;
}

const SIZES: ReadonlyMap<number, Size> = new Map([
  [OP.LD_W_ABS, 4],
  [OP.LD_H_ABS, 2],
  [OP.LD_B_ABS, 1],
  [OP.LD_W_IND, 4],
  [OP.LD_H_IND, 2],
  [OP.LD_B_IND, 1],
]);

const ALU_NAMES: ReadonlyMap<
  number,
  "add" | "sub" | "mul" | "div" | "or" | "and" | "lsh" | "rsh" | "mod" | "xor"
> = new Map([
  [OP.ADD_K, "add"],
  [OP.SUB_K, "sub"],
  [OP.MUL_K, "mul"],
  [OP.DIV_K, "div"],
  [OP.OR_K, "or"],
  [OP.AND_K, "and"],
  [OP.LSH_K, "lsh"],
  [OP.RSH_K, "rsh"],
  [OP.MOD_K, "mod"],
  [OP.XOR_K, "xor"],
]);

const CONDITIONS: ReadonlyMap<
  number,
  { readonly yes: "eq" | "gt" | "ge" | "set"; readonly no: "ne" | "le" | "lt" | null }
> = new Map([
  [OP.JEQ_K, { yes: "eq", no: "ne" }],
  [OP.JGT_K, { yes: "gt", no: "le" }],
  [OP.JGE_K, { yes: "ge", no: "lt" }],
  [OP.JSET_K, { yes: "set", no: null }],
]);

const FROM_X = 0x08;

/** Assembles a filter's program between a prologue and the two ends. Throws E_FLOW_TOO_LARGE. */
export function translate(filter: Filter, frame: Frame): ReturnType<Assembler["finish"]> {
  const asm = new Assembler();
  asm.move(CONTEXT, R.r1);
  translateInto(asm, filter, frame);
  return finish(asm, filter.source);
}

/** Adds a filter to a program in which CONTEXT is set; what `pass` does not end goes on behind it. */
export function translateInto(asm: Assembler, filter: Filter, frame: Frame): void {
  new Translation(filter, frame, asm).run();
}

/** The program as bpf(2) takes it. Throws E_FLOW_TOO_LARGE. */
export function finish(asm: Assembler, source: string): ReturnType<Assembler["finish"]> {
  try {
    return asm.finish();
  } catch (error) {
    if (!(error instanceof JumpTooFar)) throw error;
    const why = "its eBPF program is too long for 16-bit jumps";
    throw new BifurcateError("E_FLOW_TOO_LARGE", { what: `flow '${source}'`, why });
  }
}

class Translation {
  readonly #reject: Label;
  readonly #match: Label;
  readonly #starts: Label[];
  readonly #prefix: number;
  readonly #buffer: number;

  constructor(
    readonly filter: Filter,
    readonly frame: Frame,
    readonly asm: Assembler,
  ) {
    this.#reject = asm.label("reject");
    this.#match = asm.label("match");
    this.#starts = filter.program.map((_, index) => asm.label(`instruction ${index}`));
    const ends = filter.program.map(({ code, k }) => {
      if (code === OP.LDX_MSH) return k + 1;
      return isAbsolute(code) ? k + SIZES.get(code)! : 0;
    });
    this.#prefix = Math.max(frame.access.minimumPrefix, ...ends.filter((end) => end <= MAX_PREFIX));
    // Two bytes below a multiple of 8: see the picture above.
    this.#buffer = TAG_FLAG - 8 * Math.ceil((this.#prefix + 2) / 8) + 2;
  }

  run(): void {
    const { asm, frame } = this;
    const { program } = this.filter;
    frame.before?.(asm);
    frame.access.prologue(asm, this.#buffer, this.#prefix, this.#reject);
    this.#initialise();
    for (const [index, instruction] of program.entries()) {
      asm.place(this.#starts[index]!);
      this.#instruction(index, instruction);
    }
    if (asm.isUsed(this.#match)) {
      asm.place(this.#match);
      frame.match(asm);
    }
    if (asm.isUsed(this.#reject)) {
      asm.place(this.#reject);
      frame.pass(asm);
    }
  }

  /** The verifier wants registers and stack words written before they are read. */
  #initialise(): void {
    const { asm } = this;
    asm.constant(A, 0);
    asm.constant(X, 0);
    const used = new Set<number>();
    for (const { code, k } of this.filter.program) {
      if (code === OP.LD_MEM || code === OP.LDX_MEM) used.add(k);
    }
    for (const word of used) asm.storeConstant(R.fp, memory(word), 0, 4);
  }

  #goto(index: number, offset: number): Label {
    const target = this.#starts[index + 1 + offset];
    if (target === undefined) throw new RangeError(`instruction ${index} jumps out of the program`);
    return target;
  }

  #instruction(index: number, { code, jt, jf, k }: Instruction): void {
    const { asm } = this;
    const fromX = (code & FROM_X) !== 0;
    const alu = ALU_NAMES.get(code & ~FROM_X);
    if (alu !== undefined) return this.#alu(alu, fromX, k);
    const condition = CONDITIONS.get(code & ~FROM_X);
    if (condition !== undefined) {
      const compare = (name: "eq" | "gt" | "ge" | "set" | "ne" | "le" | "lt", target: Label): void => {
        if (fromX) asm.jump32Register(name, A, X, target);
        else asm.jump32(name, A, k, target);
      };
      if (jt === 0 && condition.no !== null) {
        if (jf !== 0) compare(condition.no, this.#goto(index, jf));
        return;
      }
      if (jt !== 0) compare(condition.yes, this.#goto(index, jt));
      if (jt === 0 && jf !== 0) {
        const yes = asm.label("set");
        compare(condition.yes, yes);
        asm.goto(this.#goto(index, jf));
        asm.place(yes);
        return;
      }
      if (jf !== 0) asm.goto(this.#goto(index, jf));
      return;
    }
    const size = SIZES.get(code);
    if (size !== undefined) return isAbsolute(code) ? this.#loadFixed(k, size) : this.#loadIndexed(k, size);
    switch (code) {
      case OP.LDX_MSH:
        // X = 4 * (byte & 15), and A stays: it is kept in r8 meanwhile.
        asm.move(X, A);
        this.#loadFixed(k, 1);
        asm.alu32("and", A, 0xf);
        asm.alu32("lsh", A, 2);
        asm.move(R.r0, A);
        asm.move(A, X);
        asm.move(X, R.r0);
        return;
      case OP.LD_IMM:
        return asm.constant32(A, k);
      case OP.LDX_IMM:
        return asm.constant32(X, k);
      case OP.LD_LEN:
        return asm.move(A, LENGTH);
      case OP.LDX_LEN:
        return asm.move(X, LENGTH);
      case OP.LD_MEM:
        return asm.load(A, R.fp, memory(k), 4);
      case OP.LDX_MEM:
        return asm.load(X, R.fp, memory(k), 4);
      case OP.ST:
        return asm.store(R.fp, memory(k), A, 4);
      case OP.STX:
        return asm.store(R.fp, memory(k), X, 4);
      case OP.NEG:
        return asm.negate32(A);
      case OP.TAX:
        return asm.move(X, A);
      case OP.TXA:
        return asm.move(A, X);
      case OP.JA:
        return asm.goto(this.#goto(index, k));
      case OP.RET_K:
        return asm.goto(k === 0 ? this.#reject : this.#match);
      case OP.RET_A:
        asm.jump32("eq", A, 0, this.#reject);
        return asm.goto(this.#match);
      default:
        throw new RangeError(`instruction ${index} is unknown: ${opcodeName(code)}`);
    }
  }

  #alu(
    name: "add" | "sub" | "mul" | "div" | "or" | "and" | "lsh" | "rsh" | "mod" | "xor",
    fromX: boolean,
    k: number,
  ): void {
    const { asm } = this;
    if ((name === "div" || name === "mod") && fromX) asm.jump32("eq", X, 0, this.#reject);
    if ((name === "lsh" || name === "rsh") && fromX) {
      // The machine would take the shift modulo 32; here everything is shifted out.
      const inRange = asm.label("shift");
      const done = asm.label("shifted");
      asm.jump32("lt", X, 32, inRange);
      asm.constant(A, 0);
      asm.goto(done);
      asm.place(inRange);
      asm.alu32Register(name, A, X);
      asm.place(done);
      return;
    }
    if (fromX) asm.alu32Register(name, A, X);
    else asm.alu32(name, A, k);
  }

  #loadFixed(offset: number, size: Size): void {
    const { asm } = this;
    // Beyond what fits a constant it fails just as well.
    asm.jump64("lt", LENGTH, Math.min(offset + size, FARTHEST), this.#reject);
    if (offset + size <= this.#prefix) return loadStack(asm, A, this.#buffer + offset, size);
    asm.constant(R.r2, Math.min(offset, FARTHEST));
    this.frame.access.loadComputed(asm, size, this.#buffer, this.#reject);
  }

  #loadIndexed(offset: number, size: Size): void {
    const { asm } = this;
    asm.move(R.r2, X);
    asm.alu64("add", R.r2, Math.min(offset, FARTHEST));
    asm.move(R.r3, R.r2);
    asm.alu64("add", R.r3, size);
    asm.jump64Register("gt", R.r3, LENGTH, this.#reject);
    this.frame.access.loadComputed(asm, size, this.#buffer, this.#reject);
  }
}

function isAbsolute(code: number): boolean {
  return SIZES.has(code) && (code & 0xe0) === 0x20;
}

function memory(word: number): number {
  if (word < 0 || word >= MEMORY_WORDS) throw new RangeError(`there is no M[${word}]`);
  return MEMORY + 4 * word;
}

/** dst = big-endian bytes at fp + offset, in pieces that are aligned. Uses r0. */
export function loadStack(asm: Assembler, dst: Register, offset: number, size: Size): void {
  const aligned = ((offset % size) + size) % size === 0;
  if (size === 1 || aligned) {
    asm.load(dst, R.fp, offset, size);
    if (size !== 1) asm.bigEndian(dst, size === 2 ? 16 : 32);
    return;
  }
  const half = (size / 2) as Size;
  if (half === 2 && offset % 2 !== 0) {
    // Four bytes at an odd offset.
    asm.load(dst, R.fp, offset, 1);
    for (let index = 1; index < 4; index++) {
      asm.alu32("lsh", dst, 8);
      asm.load(R.r0, R.fp, offset + index, 1);
      asm.alu32Register("or", dst, R.r0);
    }
    return;
  }
  asm.load(dst, R.fp, offset, half);
  if (half === 2) asm.bigEndian(dst, 16);
  asm.alu32("lsh", dst, half * 8);
  asm.load(R.r0, R.fp, offset + half, half);
  if (half === 2) asm.bigEndian(R.r0, 16);
  asm.alu32Register("or", dst, R.r0);
}

/** Reads r2.. of the frame with a helper of the form (context, offset, to, length) into SCRATCH, then to A. */
export function loadThroughHelper(
  asm: Assembler,
  helper: "xdp_load_bytes" | "skb_load_bytes",
  size: Size,
  reject: Label,
): void {
  asm.move(R.r1, CONTEXT);
  asm.move(R.r3, R.fp);
  asm.alu64("add", R.r3, SCRATCH);
  asm.constant(R.r4, size);
  asm.call(helper);
  asm.jump64("ne", R.r0, 0, reject);
  loadStack(asm, A, SCRATCH, size);
}

/**
 * Copies the frame's bytes from `from` on to the stack at `to`: `count` of them, or as many as there are up to
 * `available` (a register that says how many, more than 0 and below `count` here).
 */
export function copyPrefix(
  asm: Assembler,
  helper: "xdp_load_bytes" | "skb_load_bytes",
  piece: { readonly from: number; readonly to: number; readonly count: number; readonly available: Register },
  reject: Label,
): void {
  const { from, to, count, available } = piece;
  const whole = asm.label("whole");
  const copy = asm.label("copy");
  const done = asm.label("copied");
  asm.jump64("ge", available, count, whole);
  // A short frame: fewer bytes, and a number that is not constant, for which the verifier wants written memory.
  // Below 1 rather than equal to 0: from the other branch of an equality, Linux 6.1's verifier learns no lower bound,
  // and refuses the call as a possible read of nothing.
  asm.jump64("lt", available, 1, done);
  for (let offset = to; offset < to + count;) {
    const size =
      offset % 8 === 0 && offset + 8 <= to + count ? 8 : offset % 2 === 0 && offset + 2 <= to + count ? 2 : 1;
    asm.storeConstant(R.fp, offset, 0, size);
    offset += size;
  }
  asm.move(R.r4, available);
  asm.goto(copy);
  asm.place(whole);
  asm.constant(R.r4, count);
  asm.place(copy);
  asm.move(R.r1, CONTEXT);
  asm.constant(R.r2, from);
  asm.move(R.r3, R.fp);
  asm.alu64("add", R.r3, to);
  asm.call(helper);
  asm.jump64("ne", R.r0, 0, reject);
  asm.place(done);
}
