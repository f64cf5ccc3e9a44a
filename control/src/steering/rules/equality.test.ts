// Verdicts and errors equal libpcap's: on generated expressions and generated frames.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile, type Filter } from "./compile.js";
import { matches } from "./interpret.js";
import { expression, wordSalad } from "./testing/expressions.js";
import { openLibpcap, type Libpcap, type PcapProgram } from "./testing/libpcap.js";
import { frame } from "./testing/packets.js";

const oracle = openLibpcap();

/**
 * Errors of libpcap about valid expressions: it takes the offset of a load for the divisor or the shift
 * (`1 << ether[40]`, `5 / ip[0]`), and it has few registers.
 */
const PECULIAR = /shift by more than 31 bits|division by zero|modulus by zero|out of registers/;

/** Stands for an expression that we refuse because no frame can match it: then libpcap's may match none. */
const NEVER: Filter = {
  source: "",
  tree: { kind: "all", span: { start: 0, end: 0 } },
  program: [{ code: 0x06, jt: 0, jf: 0, k: 0 }],
};

/** Our filter, or the error's code. */
function compileOrCode(source: string): Filter | string {
  try {
    return compile(source);
  } catch (error) {
    if (error instanceof BifurcateError) return error.code;
    throw error;
  }
}

/** Fails unless both accept the expression, or both refuse it; what we do not implement is left out. */
function compareAcceptance(pcap: Libpcap, source: string): { ours: Filter; theirs: PcapProgram } | null {
  const ours = compileOrCode(source);
  const theirs = pcap.compile(source, false);
  const where = `'${source}': ours ${typeof ours === "string" ? ours : "accepts"}, libpcap ${typeof theirs === "string" ? theirs : "accepts"}`;
  if (typeof theirs !== "string" && ours === "E_FLOW_NEVER") return { ours: NEVER, theirs };
  if (typeof theirs !== "string" && typeof ours !== "string") return { ours, theirs };
  if (typeof theirs !== "string") theirs.free();
  if (ours === "E_FLOW_UNSUPPORTED" || ours === "E_FLOW_TOO_LARGE" || ours === "E_FLOW_NAME") return null;
  if (typeof ours !== "string" && typeof theirs === "string" && PECULIAR.test(theirs)) return null;
  expect(typeof ours, where).toBe("string");
  expect(typeof theirs, where).toBe("string");
  return null;
}

describe.skipIf("missing" in oracle)(
  `against libpcap${"missing" in oracle ? ` (${oracle.missing})` : ""}`,
  () => {
    const pcap = oracle as Libpcap;

    it("gives libpcap's verdict, optimised or not, on generated expressions and frames", () => {
      let [both, different, matched, tried] = [0, 0, 0, 0];
      fc.assert(
        fc.property(expression, fc.array(frame, { minLength: 8, maxLength: 16 }), (source, frames) => {
          const pair = compareAcceptance(pcap, source);
          if (pair === null) return;
          both++;
          const optimised = pcap.compile(source, true);
          for (const bytes of frames) {
            const expected = pair.theirs.matches(bytes);
            tried++;
            if (expected) matched++;
            const what = `'${source}' on ${Buffer.from(bytes).toString("hex")}`;
            expect(matches(pair.ours.program, bytes), what).toBe(expected);
            // libpcap's own optimiser removes loads, and with them the end of the program on a short frame.
            if (typeof optimised !== "string" && optimised.matches(bytes) !== expected) different++;
          }
          pair.theirs.free();
          if (typeof optimised !== "string") optimised.free();
        }),
        { numRuns: Number(process.env.RUNS ?? 4000) },
      );
      expect(both).toBeGreaterThan(2000);
      expect(matched).toBeGreaterThan(tried / 50);
      expect(different).toBeLessThan(tried / 100);
    });

    it("accepts and refuses what libpcap accepts and refuses, on arbitrary words", () => {
      fc.assert(
        fc.property(wordSalad, (source) => {
          const pair = compareAcceptance(pcap, source);
          pair?.theirs.free();
        }),
        { numRuns: 20000 },
      );
    });
  },
);
