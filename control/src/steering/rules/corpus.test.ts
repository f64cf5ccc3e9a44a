// Expressions as people write them: accepted with libpcap's verdict, or refused with a code and a position.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile } from "./compile.js";
import { explain } from "./explain.js";
import { matches } from "./interpret.js";
import { ACCEPTED, REFUSED } from "./testing/corpus.js";
import { openLibpcap, type Libpcap } from "./testing/libpcap.js";
import { frame } from "./testing/packets.js";

const oracle = openLibpcap();

describe("the corpus", () => {
  it("has more than 300 expressions, none twice", () => {
    const all = [...ACCEPTED, ...REFUSED.map(([source]) => source)];
    expect(all.length).toBeGreaterThan(300);
    expect(new Set(all).size).toBe(all.length);
  });

  it.each(ACCEPTED)("accepts %j and can explain it", (source) => {
    expect(explain(compile(source).tree)).toMatch(/^frames \S/);
  });

  it.each(REFUSED)("refuses %j with %s at %i", (source, code, position) => {
    const error = failure(source);
    expect(error.code).toBe(code);
    if (code === "E_FLOW_NEVER") return;
    expect(error.data?.["position"]).toBe(position);
    // The caret stands under the character.
    const lines = error.message.split("\n");
    expect(lines.at(-1)!.indexOf("^")).toBe(2 + position);
    expect(lines.at(-2)).toBe(`  ${source}`);
  });

  it("knows the number of a port that is asked for by name", () => {
    expect(failure("udp dst port domain").next).toContain("port 53");
  });

  const skip = "missing" in oracle ? ` (${oracle.missing})` : "";
  it.skipIf(skip !== "")(`gives libpcap's verdicts${skip}`, () => {
    const pcap = oracle as Libpcap;
    const frames = fc.sample(frame, { numRuns: 400, seed: 7 });
    for (const source of ACCEPTED) {
      const { program } = compile(source);
      const theirs = pcap.compile(source, false);
      if (typeof theirs === "string") expect.fail(`'${source}': libpcap says ${theirs}`);
      const ours = frames.map((bytes) => matches(program, bytes));
      expect(ours, source).toEqual(frames.map((bytes) => theirs.matches(bytes)));
      theirs.free();
    }
  });

  it.skipIf(skip !== "")(`libpcap refuses what is called a syntax error${skip}`, () => {
    for (const [source, code] of REFUSED) {
      // An empty expression matches everything there; we want `all` to be said.
      if (code !== "E_FLOW_SYNTAX" || source.trim() === "") continue;
      expect(typeof (oracle as Libpcap).compile(source, false), source).toBe("string");
    }
  });
});

function failure(source: string): BifurcateError {
  try {
    compile(source);
  } catch (error) {
    if (error instanceof BifurcateError) return error;
    throw error;
  }
  throw new Error(`'${source}' was accepted`);
}
