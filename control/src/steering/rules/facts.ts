// What is known of a packet that took a certain way through the tests of an expression.
import type { Test } from "./blocks.js";
import { connect, type Node } from "./emit.js";
import type { Block } from "./blocks.js";
import { OP } from "./program.js";

/** Known bits of one byte. */
interface Bits {
  readonly mask: number;
  readonly value: number;
}

/** What is known of a field beyond single bits. */
interface Range {
  readonly min: number;
  readonly max: number;
  /** Values that it does not have under a mask. */
  readonly not: readonly Bits[];
}

/** A field: its position and its size in bytes; "length" for the frame's length. */
interface Field {
  readonly at: number;
  readonly size: 1 | 2 | 4;
  readonly mask: number;
}

/** Positions behind the IPv4 header that starts at `header`: what a load with the header's length reaches. */
const BEHIND = 0x100000;

/** The position of byte `offset` behind the IPv4 header at `header`. */
export function behindHeader(header: number, offset: number): number {
  return BEHIND * (header + 1) + offset;
}

/** Splits a position into header and offset, or null for a plain offset. */
export function splitPosition(at: number): { header: number; offset: number } | null {
  return at < BEHIND ? null : { header: Math.floor(at / BEHIND) - 1, offset: at % BEHIND };
}

const LENGTH = -1;

/** Facts about one packet; never changed once made. */
export class Facts {
  static readonly none: Facts = new this(new Map(), new Map(), new Map());

  private constructor(
    readonly bytes: ReadonlyMap<number, Bits>,
    readonly ranges: ReadonlyMap<string, Range & { readonly field: Field }>,
    /** Outcomes of tests that are more than a field compared with a constant. */
    readonly outcomes: ReadonlyMap<string, boolean>,
  ) {}

  /** Whether everything that was tested is a field: then the facts say all there is to say. */
  get complete(): boolean {
    return this.outcomes.size === 0;
  }

  /** Known bits of a field of `size` bytes. */
  bits(at: number, size: 1 | 2 | 4): Bits {
    let [mask, value] = [0, 0];
    for (let index = 0; index < size; index++) {
      const byte = this.bytes.get(at + index) ?? { mask: 0, value: 0 };
      mask = ((mask << 8) | byte.mask) >>> 0;
      value = ((value << 8) | byte.value) >>> 0;
    }
    return { mask, value };
  }

  /** The value of a field, if all its bits are known. */
  value(at: number, size: 1 | 2 | 4): number | null {
    const { mask, value } = this.bits(at, size);
    return mask === ones(size) ? value : null;
  }

  /** The least and greatest value that a field can have. */
  range(at: number, size: 1 | 2 | 4): { min: number; max: number } {
    const { mask, value } = this.bits(at, size);
    const known = this.ranges.get(`${at}:${size}`);
    const greatest = (value | (ones(size) & ~mask)) >>> 0;
    return { min: Math.max(value, known?.min ?? 0), max: Math.min(greatest, known?.max ?? greatest) };
  }

  /** The facts after a test has come out so, or null: then no packet takes this way. */
  assume(test: Test, holds: boolean): Facts | null {
    const field = fieldOf(test);
    if (field === null || test.k === null) {
      const key = `${test.statements.map(({ code, k }) => `${code}:${k}`).join(" ")} ${test.jump} ${test.k}`;
      const known = this.outcomes.get(key);
      if (known !== undefined) return known === holds ? this : null;
      return new Facts(this.bytes, this.ranges, new Map(this.outcomes).set(key, holds));
    }
    switch (test.jump) {
      case "JEQ":
        return holds ? this.#withBits(field, test.k) : this.#without(field, field.mask, test.k);
      case "JGT":
        return holds ? this.#within(field, test.k + 1, Infinity) : this.#within(field, 0, test.k);
      case "JGE":
        return holds ? this.#within(field, test.k, Infinity) : this.#within(field, 0, test.k - 1);
      case "JSET": {
        const bits = (test.k & field.mask) >>> 0;
        if (!holds) return this.#withBits({ ...field, mask: bits }, 0);
        const single = (bits & (bits - 1)) === 0;
        return single ? this.#withBits({ ...field, mask: bits }, bits) : this.#without(field, bits, 0);
      }
    }
  }

  #withBits(field: Field, k: number): Facts | null {
    const { at, size } = field;
    if (at === LENGTH) return this.#within(field, k, k);
    if ((k & ~(field.mask & ones(size))) !== 0 || k > ones(size)) return null;
    const bytes = new Map(this.bytes);
    for (let index = 0; index < size; index++) {
      const shift = 8 * (size - 1 - index);
      const mask = (field.mask >>> shift) & 0xff;
      if (mask === 0) continue;
      const value = (k >>> shift) & mask;
      const before = bytes.get(at + index) ?? { mask: 0, value: 0 };
      if (((before.value ^ value) & before.mask & mask) !== 0) return null;
      bytes.set(at + index, { mask: before.mask | mask, value: before.value | value });
    }
    return new Facts(bytes, this.ranges, this.outcomes).#consistent();
  }

  #without(field: Field, mask: number, value: number): Facts | null {
    const bits = (mask & ones(field.size)) >>> 0;
    // A single bit that is not 0 is 1, and the other way round.
    if (bits !== 0 && (bits & (bits - 1)) === 0) {
      if ((value & ~bits) !== 0) return this;
      return this.#withBits({ ...field, mask: bits }, (value ^ bits) >>> 0);
    }
    return this.#narrow(field, (range) => ({
      ...range,
      not: [...range.not, { mask: (mask & ones(field.size)) >>> 0, value }],
    }));
  }

  #within(field: Field, min: number, max: number): Facts | null {
    if ((field.mask & ones(field.size)) >>> 0 !== ones(field.size)) {
      // A comparison under a mask says little about the field; it can only be impossible.
      return min > field.mask || max < 0 ? null : this;
    }
    return this.#narrow(field, (range) => ({
      ...range,
      min: Math.max(range.min, min),
      max: Math.min(range.max, max),
    }));
  }

  #narrow(field: Field, change: (range: Range) => Range): Facts | null {
    const key = `${field.at}:${field.size}`;
    const before = this.ranges.get(key) ?? { field, min: 0, max: ones(field.size), not: [] };
    const ranges = new Map(this.ranges).set(key, { ...change(before), field });
    return new Facts(this.bytes, ranges, this.outcomes).#consistent();
  }

  /** This, unless some field can have no value any more. */
  #consistent(): Facts | null {
    for (const { field, not, min: lowest, max: highest } of this.ranges.values()) {
      const { at, size } = field;
      const { min, max } = at === LENGTH ? { min: lowest, max: highest } : this.range(at, size);
      if (min > max) return null;
      const { mask, value } = at === LENGTH ? { mask: 0, value: 0 } : this.bits(at, size);
      const exact = min === max ? { mask: ones(size), value: min } : { mask, value };
      for (const excluded of not) {
        if ((excluded.mask & ~exact.mask) !== 0) continue;
        if ((exact.value & excluded.mask) >>> 0 === excluded.value) return null;
      }
    }
    return this;
  }
}

function ones(size: 1 | 2 | 4): number {
  return size === 4 ? 0xffffffff : size === 2 ? 0xffff : 0xff;
}

/** The field that a test reads, if that is all its statements do. */
function fieldOf(test: Test): Field | null {
  const [first, second, third] = test.statements;
  if (first === undefined) return null;
  if (first.code === OP.LD_LEN && second === undefined) return { at: LENGTH, size: 4, mask: 0xffffffff };
  const indexed = first.code === OP.LDX_MSH;
  const [load, mask, more] = indexed ? [second, third, test.statements[3]] : [first, second, third];
  const size = load === undefined ? undefined : SIZES.get(load.code);
  if (load === undefined || size === undefined || more !== undefined || load.k >= BEHIND) return null;
  if (indexed !== load.code >= OP.LD_W_IND) return null;
  if (mask !== undefined && mask.code !== OP.AND_K) return null;
  return { at: indexed ? behindHeader(first.k, load.k) : load.k, size, mask: mask?.k ?? 0xffffffff };
}

const SIZES: ReadonlyMap<number, 1 | 2 | 4> = new Map([
  [OP.LD_W_ABS, 4],
  [OP.LD_H_ABS, 2],
  [OP.LD_B_ABS, 1],
  [OP.LD_W_IND, 4],
  [OP.LD_H_IND, 2],
  [OP.LD_B_IND, 1],
]);

/** The tests were too many to follow every way. */
export class TooManyWays extends Error {}

/** Steps after which {@link ways} gives up, if nothing else is said. */
const BUDGET = 200_000;

/**
 * Facts about every way through the tests that ends in a match. Ways that no packet can take are left out, as far
 * as that can be seen. Throws TooManyWays.
 */
export function* ways(block: Block, budget = BUDGET): Generator<Facts> {
  let steps = 0;
  const stack: { node: Node; facts: Facts }[] = [{ node: connect(block), facts: Facts.none }];
  for (;;) {
    const top = stack.pop();
    if (top === undefined) return;
    const { node, facts } = top;
    if (node.kind === "return") {
      if (node.match) yield facts;
      continue;
    }
    if (++steps > budget) throw new TooManyWays();
    const test: Test = { kind: "test", statements: node.statements, jump: node.jump, k: node.k };
    for (const holds of [false, true]) {
      const after = facts.assume(test, holds);
      if (after !== null) stack.push({ node: holds ? node.yes : node.no, facts: after });
    }
  }
}
