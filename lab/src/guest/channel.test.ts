// The control channel's lines: however the bytes are cut, and whatever a broken guest writes.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Lines } from "./channel.js";

describe("lines of the control channel", () => {
  it("come out whole, however they were cut", () => {
    fc.assert(
      fc.property(fc.array(fc.jsonValue()), fc.array(fc.nat(20)), (values, cuts) => {
        const bytes = Buffer.from(values.map((value) => `${JSON.stringify(value)}\n`).join(""));
        const lines = new Lines();
        const out: unknown[] = [];
        let at = 0;
        for (const cut of cuts) {
          out.push(...lines.take(bytes.subarray(at, at + cut)));
          at += cut;
        }
        out.push(...lines.take(bytes.subarray(at)));
        expect(JSON.stringify(out)).toBe(JSON.stringify(values));
      }),
    );
  });

  it("that are no JSON are passed over", () => {
    expect(new Lines().take(Buffer.from('{"run":1}\n\0\xff{{\n\n{"run":2}\n', "latin1"))).toEqual([
      { run: 1 },
      { run: 2 },
    ]);
  });
});
