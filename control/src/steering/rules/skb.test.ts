// The mark of passed frames is the same number where they are marked, in Rust, and where filters look for it.
import { PASS_MARK as markedInRust } from "@bifurcate/addon";
import { expect, it } from "vitest";
import { PASS_MARK, passMarkProgram } from "./skb.js";

it("filters know the mark that the way back gives to passed frames", () => {
  expect(PASS_MARK).toBe(markedInRust);
  expect(PASS_MARK).toBeGreaterThan(0);
  // tc_index is a field of 16 bits.
  expect(PASS_MARK).toBeLessThan(1 << 16);
  expect(Buffer.from(passMarkProgram().instructions).includes(Buffer.from([0xf0, 0xb1]))).toBe(true);
});
