// A small eBPF assembler: named instructions, labels, maps (RFC 9669; linux/bpf.h).
import type { BpfMap } from "../../kernel.js";

/** Registers. r1 to r5 hold arguments and do not survive a call; r6 to r9 do. */
export const R = { r0: 0, r1: 1, r2: 2, r3: 3, r4: 4, r5: 5, r6: 6, r7: 7, r8: 8, r9: 9, fp: 10 } as const;

/** A register's number. */
export type Register = (typeof R)[keyof typeof R];

/** Helper functions by number (linux/bpf.h, enum bpf_func_id). */
export const HELPER = {
  map_lookup_elem: 1,
  ktime_get_ns: 5,
  redirect: 23,
  skb_load_bytes: 26,
  redirect_map: 51,
  xdp_adjust_meta: 54,
  xdp_get_buff_len: 188,
  xdp_load_bytes: 189,
} as const;

/** Operations of the ALU classes (upper four bits). */
export const ALU = {
  add: 0x00,
  sub: 0x10,
  mul: 0x20,
  div: 0x30,
  or: 0x40,
  and: 0x50,
  lsh: 0x60,
  rsh: 0x70,
  mod: 0x90,
  xor: 0xa0,
  mov: 0xb0,
} as const;

/** Conditions of the jump classes; all unsigned. */
export const JUMP = { eq: 0x10, gt: 0x20, ge: 0x30, set: 0x40, ne: 0x50, lt: 0xa0, le: 0xb0 } as const;

/** Bytes of a memory access, as the opcode's size bits. */
const SIZE = { 1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18 } as const;

const CLASS = {
  ld: 0x00,
  ldx: 0x01,
  st: 0x02,
  stx: 0x03,
  alu: 0x04,
  jmp: 0x05,
  jmp32: 0x06,
  alu64: 0x07,
} as const;
const MODE_MEM = 0x60;
const SOURCE_REGISTER = 0x08;
const NEG = 0x80;
const CALL = 0x80;
const EXIT = 0x90;
/** BPF_END with BPF_TO_BE: to (or from) network byte order. */
const TO_BIG_ENDIAN = 0xdc;
const PSEUDO_MAP_FD = 1;

/** Where a map goes in a program. */
export interface MapUse {
  /** Index of the ld_imm64, in units of 8 bytes. */
  readonly instruction: number;
  readonly map: BpfMap;
}

/** Where a function of the kernel (a kfunc) is called; its number is put in when the program is loaded. */
export interface KernelCall {
  /** Index of the call, in units of 8 bytes. */
  readonly instruction: number;
  readonly name: string;
}

/** What an assembler made. */
export interface Assembled {
  readonly instructions: Uint8Array;
  readonly maps: readonly MapUse[];
  readonly calls: readonly KernelCall[];
}

/** A place in a program that jumps can lead to. */
export interface Label {
  readonly name: string;
}

interface Word {
  code: number;
  dst: number;
  src: number;
  off: number;
  imm: number;
  target?: Label;
}

/** A jump leads further than 16 bits can say. */
export class JumpTooFar extends RangeError {}

/** Collects instructions, then resolves labels. */
export class Assembler {
  readonly #words: Word[] = [];
  readonly #places = new Map<Label, number>();
  readonly #used = new Set<Label>();
  readonly #maps: MapUse[] = [];
  readonly #calls: KernelCall[] = [];

  label(name: string): Label {
    return { name };
  }

  /** The label stands for the instruction that comes next. */
  place(label: Label): void {
    this.#places.set(label, this.#words.length);
  }

  /** Whether any jump leads to the label so far. */
  isUsed(label: Label): boolean {
    return this.#used.has(label);
  }

  #push(code: number, dst: number, src: number, off: number, imm: number, target?: Label): void {
    this.#words.push({ code, dst, src, off, imm, ...(target === undefined ? {} : { target }) });
    if (target !== undefined) this.#used.add(target);
  }

  /** dst = src, 64 bits. */
  move(dst: Register, src: Register): void {
    this.#push(CLASS.alu64 | ALU.mov | SOURCE_REGISTER, dst, src, 0, 0);
  }

  /** dst = a signed 32-bit constant, extended to 64 bits. */
  constant(dst: Register, value: number): void {
    this.#push(CLASS.alu64 | ALU.mov, dst, 0, 0, value | 0);
  }

  /** dst = an unsigned 32-bit constant. */
  constant32(dst: Register, value: number): void {
    this.#push(CLASS.alu | ALU.mov, dst, 0, 0, value | 0);
  }

  /** 32-bit operation with a constant; the upper half of dst becomes 0. */
  alu32(operation: keyof typeof ALU, dst: Register, value: number): void {
    this.#push(CLASS.alu | ALU[operation], dst, 0, 0, value | 0);
  }

  /** 32-bit operation with a register; the upper half of dst becomes 0. */
  alu32Register(operation: keyof typeof ALU, dst: Register, src: Register): void {
    this.#push(CLASS.alu | ALU[operation] | SOURCE_REGISTER, dst, src, 0, 0);
  }

  /** 64-bit operation with a signed 32-bit constant. */
  alu64(operation: keyof typeof ALU, dst: Register, value: number): void {
    this.#push(CLASS.alu64 | ALU[operation], dst, 0, 0, value | 0);
  }

  /** 64-bit operation with a register. */
  alu64Register(operation: keyof typeof ALU, dst: Register, src: Register): void {
    this.#push(CLASS.alu64 | ALU[operation] | SOURCE_REGISTER, dst, src, 0, 0);
  }

  /** dst = -dst, 32 bits. */
  negate32(dst: Register): void {
    this.#push(CLASS.alu | NEG, dst, 0, 0, 0);
  }

  /** Network order to host order (or back) of the lower 16 or 32 bits; the rest becomes 0. */
  bigEndian(dst: Register, bits: 16 | 32): void {
    this.#push(TO_BIG_ENDIAN, dst, 0, 0, bits);
  }

  /** dst = bytes at src + off, zero-extended. */
  load(dst: Register, src: Register, off: number, size: keyof typeof SIZE): void {
    this.#push(CLASS.ldx | MODE_MEM | SIZE[size], dst, src, off, 0);
  }

  /** Bytes at dst + off = src. */
  store(dst: Register, off: number, src: Register, size: keyof typeof SIZE): void {
    this.#push(CLASS.stx | MODE_MEM | SIZE[size], dst, src, off, 0);
  }

  /** Bytes at dst + off = a constant. */
  storeConstant(dst: Register, off: number, value: number, size: keyof typeof SIZE): void {
    this.#push(CLASS.st | MODE_MEM | SIZE[size], dst, 0, off, value | 0);
  }

  /** dst = the map, for a helper. */
  loadMap(dst: Register, map: BpfMap): void {
    this.#maps.push({ instruction: this.#words.length, map });
    this.#push(CLASS.ld | SIZE[8], dst, PSEUDO_MAP_FD, 0, 0);
    this.#push(0, 0, 0, 0, 0);
  }

  /** Jumps if the condition holds between 32-bit dst and a constant. */
  jump32(condition: keyof typeof JUMP, dst: Register, value: number, target: Label): void {
    this.#push(CLASS.jmp32 | JUMP[condition], dst, 0, 0, value | 0, target);
  }

  /** Jumps if the condition holds between 32-bit registers. */
  jump32Register(condition: keyof typeof JUMP, dst: Register, src: Register, target: Label): void {
    this.#push(CLASS.jmp32 | JUMP[condition] | SOURCE_REGISTER, dst, src, 0, 0, target);
  }

  /** Jumps if the condition holds between 64-bit dst and a signed 32-bit constant. */
  jump64(condition: keyof typeof JUMP, dst: Register, value: number, target: Label): void {
    this.#push(CLASS.jmp | JUMP[condition], dst, 0, 0, value | 0, target);
  }

  /** Jumps if the condition holds between 64-bit registers. */
  jump64Register(condition: keyof typeof JUMP, dst: Register, src: Register, target: Label): void {
    this.#push(CLASS.jmp | JUMP[condition] | SOURCE_REGISTER, dst, src, 0, 0, target);
  }

  /** Jumps always. */
  goto(target: Label): void {
    this.#push(CLASS.jmp, 0, 0, 0, 0, target);
  }

  /** r0 = helper(r1, ...). */
  call(helper: keyof typeof HELPER): void {
    this.#push(CLASS.jmp | CALL, 0, 0, 0, HELPER[helper]);
  }

  /** r0 = a function of the kernel(r1, ...). */
  callKernel(name: string): void {
    this.#calls.push({ instruction: this.#words.length, name });
    this.#push(CLASS.jmp | CALL, 0, 0, 0, 0);
  }

  /** Returns r0. */
  exit(): void {
    this.#push(CLASS.jmp | EXIT, 0, 0, 0, 0);
  }

  /** The program as bpf(2) takes it, in little-endian host order. Throws JumpTooFar. */
  finish(): Assembled {
    const instructions = new Uint8Array(this.#words.length * 8);
    const view = new DataView(instructions.buffer);
    for (const [index, word] of this.#words.entries()) {
      let { off } = word;
      if (word.target !== undefined) {
        const place = this.#places.get(word.target);
        if (place === undefined) throw new Error(`label '${word.target.name}' is nowhere`);
        off = place - index - 1;
        if (off < -32768 || off > 32767) throw new JumpTooFar(`a jump over ${off} instructions`);
      }
      view.setUint8(index * 8, word.code);
      view.setUint8(index * 8 + 1, word.dst | (word.src << 4));
      view.setInt16(index * 8 + 2, off, true);
      view.setInt32(index * 8 + 4, word.imm, true);
    }
    return { instructions, maps: this.#maps, calls: this.#calls };
  }
}
