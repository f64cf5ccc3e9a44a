// Several flows in one filter: a frame matches when it matches any of them on its own.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile, compileAny, type Filter } from "./compile.js";
import { matches } from "./interpret.js";
import { expression } from "./testing/expressions.js";
import { frame, ip4Bytes } from "./testing/packets.js";

function orNull<T>(make: () => T): T | null {
  try {
    return make();
  } catch (error) {
    if (error instanceof BifurcateError) return null;
    throw error;
  }
}

describe("compileAny", () => {
  it("keeps a VLAN tag of one flow from moving the other", () => {
    const bytes = Uint8Array.from([
      ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0],
      ...[...ip4Bytes("10.0.0.1"), ...ip4Bytes("10.0.0.2"), 4, 0, 0, 53, 0, 8, 0, 0],
    ]);
    expect(matches(compile("(vlan 5) or (udp dst port 53)").program, bytes)).toBe(false);
    expect(matches(compileAny(["vlan 5", "udp dst port 53"]).program, bytes)).toBe(true);
  });

  it("tries the next flow when the frame is too short for one", () => {
    const short = Uint8Array.of(2, 0, 0, 0, 0, 1);
    expect(matches(compile("ether[200] = 1 or ether[0] = 2").program, short)).toBe(false);
    expect(matches(compileAny(["ether[200] = 1", "ether[0] = 2"]).program, short)).toBe(true);
  });

  it("is the whole card as soon as one flow is", () => {
    expect(compileAny(["udp", "all"]).tree.kind).toBe("all");
  });

  it("refuses an empty list", () => {
    expect(() => compileAny([])).toThrow(expect.objectContaining({ code: "E_NO_FLOW" }));
  });

  it("matches what any of its flows matches", () => {
    let [tried, matched] = [0, 0];
    fc.assert(
      fc.property(
        fc.array(expression, { minLength: 2, maxLength: 4 }),
        fc.array(frame, { minLength: 8, maxLength: 16 }),
        (sources, frames) => {
          const each = sources.map((source) => orNull(() => compile(source)));
          if (each.includes(null)) return;
          const any = orNull(() => compileAny(sources));
          if (any === null) return;
          for (const bytes of frames) {
            const expected = (each as Filter[]).some(({ program }) => matches(program, bytes));
            tried++;
            if (expected) matched++;
            const what = `${JSON.stringify(sources)} on ${Buffer.from(bytes).toString("hex")}`;
            expect(matches(any.program, bytes), what).toBe(expected);
          }
        },
      ),
      { numRuns: Number(process.env["RUNS"] ?? 2000) },
    );
    expect(tried).toBeGreaterThan(5000);
    expect(matched).toBeGreaterThan(tried / 10);
  });
});
