// The listing of a program: what people who read `tcpdump -d` expect.
import { describe, expect, it } from "vitest";
import { compile } from "./compile.js";
import { formatProgram, OP, type Instruction } from "./program.js";

const one = (code: number, k: number): string => formatProgram([{ code, jt: 0, jf: 0, k }]);

describe("formatProgram", () => {
  it("lists a filter as tcpdump -d does", () => {
    expect(formatProgram(compile("ip and udp dst port 53").program).split("\n")).toEqual([
      "(000) ldh      [12]",
      "(001) jeq      #0x800           jt 2  jf 10",
      "(002) ldb      [23]",
      "(003) jeq      #0x11            jt 4  jf 10",
      "(004) ldh      [20]",
      "(005) jset     #0x1fff          jt 10  jf 6",
      "(006) ldxb     4*([14]&0xf)",
      "(007) ldh      [x + 16]",
      "(008) jeq      #0x35            jt 9  jf 10",
      "(009) ret      #262144",
      "(010) ret      #0",
    ]);
  });

  it("writes every kind of operand", () => {
    const lines: [number, number, string][] = [
      [OP.LD_W_ABS, 26, "ld       [26]"],
      [OP.LD_B_IND, 14, "ldb      [x + 14]"],
      [OP.LD_IMM, 7, "ld       #7"],
      [OP.LD_LEN, 0, "ld       #pktlen"],
      [OP.LD_MEM, 3, "ld       M[3]"],
      [OP.LDX_IMM, 1, "ldx      #1"],
      [OP.LDX_MEM, 2, "ldx      M[2]"],
      [OP.ST, 1, "st       M[1]"],
      [OP.STX, 1, "stx      M[1]"],
      [OP.ADD_K, 4, "add      #4"],
      [OP.SUB_X, 0, "sub      x"],
      [OP.AND_K, 255, "and      #0xff"],
      [OP.NEG, 0, "neg"],
      [OP.TAX, 0, "tax"],
      [OP.TXA, 0, "txa"],
      [OP.RET_A, 0, "ret"],
      [OP.JA, 5, "ja       6"],
    ];
    for (const [code, k, text] of lines) expect(one(code, k)).toBe(`(000) ${text}`);
  });

  it("shows an instruction that it does not know by its number", () => {
    const unknown: Instruction = { code: 0xffff, jt: 0, jf: 0, k: 1 };
    expect(formatProgram([unknown])).toContain("0xffff");
  });
});
