// Classic BPF programs: instructions, their opcodes and their bytes (linux/filter.h, linux/bpf_common.h).

/** One instruction: struct sock_filter. */
export interface Instruction {
  readonly code: number;
  /** Instructions to skip when the condition holds, 0 to 255. */
  readonly jt: number;
  /** Instructions to skip when it does not. */
  readonly jf: number;
  /** Operand, 32 bits unsigned. */
  readonly k: number;
}

/** A whole program. Its value for a frame is the number of bytes to keep: 0 means no match. */
export type Program = readonly Instruction[];

/** Value of a match: libpcap's largest snapshot length. */
export const MATCH = 262144;

/** The kernel takes no longer program (BPF_MAXINSNS, linux/bpf_common.h). */
export const MAX_INSTRUCTIONS = 4096;

/** Scratch words M[] (BPF_MEMWORDS, linux/filter.h). */
export const MEMORY_WORDS = 16;

/** Opcodes that are used here, by their names in assembler. */
export const OP = {
  LD_W_ABS: 0x20,
  LD_H_ABS: 0x28,
  LD_B_ABS: 0x30,
  LD_W_IND: 0x40,
  LD_H_IND: 0x48,
  LD_B_IND: 0x50,
  LD_IMM: 0x00,
  LD_LEN: 0x80,
  LD_MEM: 0x60,
  LDX_IMM: 0x01,
  LDX_MEM: 0x61,
  LDX_LEN: 0x81,
  LDX_MSH: 0xb1,
  ST: 0x02,
  STX: 0x03,
  ADD_K: 0x04,
  ADD_X: 0x0c,
  SUB_K: 0x14,
  SUB_X: 0x1c,
  MUL_K: 0x24,
  MUL_X: 0x2c,
  DIV_K: 0x34,
  DIV_X: 0x3c,
  OR_K: 0x44,
  OR_X: 0x4c,
  AND_K: 0x54,
  AND_X: 0x5c,
  LSH_K: 0x64,
  LSH_X: 0x6c,
  RSH_K: 0x74,
  RSH_X: 0x7c,
  NEG: 0x84,
  MOD_K: 0x94,
  MOD_X: 0x9c,
  XOR_K: 0xa4,
  XOR_X: 0xac,
  JA: 0x05,
  JEQ_K: 0x15,
  JEQ_X: 0x1d,
  JGT_K: 0x25,
  JGT_X: 0x2d,
  JGE_K: 0x35,
  JGE_X: 0x3d,
  JSET_K: 0x45,
  JSET_X: 0x4d,
  RET_K: 0x06,
  RET_A: 0x16,
  TAX: 0x07,
  TXA: 0x87,
} as const;

/** Any opcode of {@link OP}. */
export type Opcode = (typeof OP)[keyof typeof OP];

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(OP).map(([name, code]) => [code, name]));

/** The assembler name of an opcode, e.g. "LD_H_ABS". */
export function opcodeName(code: number): string {
  return NAMES.get(code) ?? `0x${code.toString(16)}`;
}

/** The program as bytes: 8 an instruction, struct sock_filter in little-endian host order. */
export function encodeProgram(program: Program): Uint8Array {
  const bytes = new Uint8Array(program.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [index, { code, jt, jf, k }] of program.entries()) {
    view.setUint16(index * 8, code, true);
    view.setUint8(index * 8 + 2, jt);
    view.setUint8(index * 8 + 3, jf);
    view.setUint32(index * 8 + 4, k, true);
  }
  return bytes;
}

/** What an instruction works on, as `tcpdump -d` writes it. */
function operand(name: string, k: number): string {
  const mode = name.split("_").at(-1);
  if (mode === "ST" || mode === "STX" || mode === "MEM") return `M[${k}]`;
  if (mode === "ABS") return `[${k}]`;
  if (mode === "IND") return `[x + ${k}]`;
  if (mode === "LEN") return "#pktlen";
  if (mode === "MSH") return `4*([${k}]&0xf)`;
  if (mode === "X") return "x";
  if (["RET_A", "TAX", "TXA", "NEG"].includes(name)) return "";
  // Jumps and masks are read in hexadecimal, lengths and numbers to calculate with in decimal.
  const hexadecimal = name.startsWith("J") || ["AND_K", "OR_K", "XOR_K"].includes(name);
  return `#${hexadecimal ? `0x${k.toString(16)}` : k}`;
}

/** "LD_H_ABS" is `ldh`, "LDX_MSH" is `ldxb`, every other name is its first word. */
function mnemonicOf(name: string): string {
  const [first = "", size = ""] = name.toLowerCase().split("_");
  if (name === "LDX_MSH") return "ldxb";
  return first === "ld" && (size === "h" || size === "b") ? `ld${size}` : first;
}

/** One line an instruction, as `tcpdump -d` prints it. */
export function formatProgram(program: Program): string {
  return program
    .map(({ code, jt, jf, k }, index) => {
      const name = opcodeName(code);
      const place = `(${String(index).padStart(3, "0")})`;
      if (name === "JA") return `${place} ja       ${index + 1 + k}`;
      const text = `${place} ${mnemonicOf(name).padEnd(8)} ${operand(name, k)}`;
      if (!name.startsWith("J")) return text.trimEnd();
      return `${text.padEnd(31)} jt ${index + 1 + jt}  jf ${index + 1 + jf}`;
    })
    .join("\n");
}
