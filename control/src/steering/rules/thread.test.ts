// Skipping tests whose outcome is known never changes a verdict, at the borders of ranges least of all.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile } from "./compile.js";
import { connect, emit } from "./emit.js";
import { matches } from "./interpret.js";
import { lower } from "./lower.js";
import { parse } from "./parser.js";

/** Comparisons of one byte with neighbouring constants, joined: outcomes often follow from each other. */
const comparison = fc
  .tuple(fc.constantFrom("=", "!=", "<", "<=", ">", ">=", "&"), fc.nat(5))
  .map(([operator, k]) => (operator === "&" ? `ether[0] & ${k} != 0` : `ether[0] ${operator} ${k}`));
const joined = fc
  .array(fc.tuple(fc.constantFrom("and", "or", "and not", "or not"), comparison), {
    minLength: 1,
    maxLength: 5,
  })
  .chain((parts) => comparison.map((first) => [first, ...parts.map((part) => part.join(" "))].join(" ")));

describe("the optimiser", () => {
  it("keeps every verdict", () => {
    fc.assert(
      fc.property(joined, (source) => {
        const plain = emit(connect(lower(parse(source), source)));
        const values = Array.from({ length: 8 }, (_, value) => Uint8Array.of(value));
        const expected = values.map((bytes) => matches(plain, bytes));
        let ours: boolean[];
        try {
          const { program } = compile(source);
          expect(program.length).toBeLessThanOrEqual(plain.length);
          ours = values.map((bytes) => matches(program, bytes));
        } catch (error) {
          if (!(error instanceof BifurcateError) || error.code !== "E_FLOW_NEVER") throw error;
          ours = values.map(() => false);
        }
        expect(ours, source).toEqual(expected);
      }),
      { numRuns: 5000 },
    );
  });

  it("loads the type of the frame once", () => {
    const { program } = compile("udp dst port 53");
    expect(program.filter(({ code, k }) => code === 0x28 && k === 12)).toHaveLength(1);
  });
});
