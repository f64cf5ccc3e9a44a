// What the driver says of a frame, left in front of it by the XDP program for whoever reads the frame from the socket.
import { Assembler, R, type Label } from "./ebpf.js";
import { CONTEXT, SCRATCH } from "./translate.js";

/** What a driver can be asked (Documentation/networking/xdp-rx-metadata.rst). */
export const HINTS = ["hash", "timestamp", "vlan"] as const;
export type Hint = (typeof HINTS)[number];

/*
 * Written as datapath/src/device/af_xdp/metadata.rs reads it, made on the stack first:
 *
 *    -24 timestamp (8)   -16 hash (4)   -12 VLAN TCI (2)   -10 which are present (2)   -8 marker (8)   0 the frame
 */
const SIZE = 24;
const TIMESTAMP = -24;
const HASH = -16;
const VLAN = -12;
const PRESENT = -10;
const MARKER = -8;
/** "bf-hint1" in the order of memory, as two words. */
const MARKER_WORDS = [0x682d6662, 0x31746e69] as const;
const BIT: Readonly<Record<Hint, number>> = { hash: 1, timestamp: 2, vlan: 4 };

/** Offsets in struct xdp_md (linux/bpf.h). */
const DATA = 0;
const DATA_META = 8;

/**
 * Asks the driver (kernel 6.3; VLAN tags 6.8) and writes what it says in front of the frame. Without room there nothing
 * is written. The frame is touched at constant offsets only, so that this verifies without CAP_PERFMON. CONTEXT lives
 * on; r0 to r5, r7 and the filter's memory do not.
 */
export function writeHints(asm: Assembler, hints: readonly Hint[]): void {
  const done = asm.label("hints written");
  const present = R.r7;
  // The verifier wants to see all of it written before the driver gets a pointer to it.
  for (const at of [TIMESTAMP, TIMESTAMP + 4, HASH, VLAN]) asm.storeConstant(R.fp, at, 0, 4);
  for (const [i, half] of MARKER_WORDS.entries()) asm.storeConstant(R.fp, MARKER + 4 * i, half, 4);
  asm.constant(present, 0);
  if (hints.includes("timestamp")) ask(asm, "timestamp", [TIMESTAMP]);
  // The hash comes with its kind, the tag with its protocol: neither is kept.
  if (hints.includes("hash")) ask(asm, "hash", [HASH, SCRATCH]);
  if (hints.includes("vlan")) ask(asm, "vlan_tag", [SCRATCH, VLAN]);
  asm.store(R.fp, PRESENT, present, 2);
  makeRoom(asm, done);
  for (let at = 0; at < SIZE; at += 8) {
    asm.load(R.r3, R.fp, TIMESTAMP + at, 8);
    asm.store(R.r1, at, R.r3, 8);
  }
  asm.place(done);
}

/** present |= the hint's bit, if the driver's function answers 0. Its results go to the stack. */
function ask(asm: Assembler, what: "timestamp" | "hash" | "vlan_tag", results: readonly number[]): void {
  const unknown = asm.label(`no ${what}`);
  asm.storeConstant(R.fp, SCRATCH, 0, 4);
  asm.move(R.r1, CONTEXT);
  for (const [i, at] of results.entries()) {
    const argument = i === 0 ? R.r2 : R.r3;
    asm.move(argument, R.fp);
    asm.alu64("add", argument, at);
  }
  asm.callKernel(`bpf_xdp_metadata_rx_${what}`);
  asm.jump64("ne", R.r0, 0, unknown);
  asm.alu64("or", R.r7, BIT[what === "vlan_tag" ? "vlan" : what]);
  asm.place(unknown);
}

/** r1 = SIZE bytes in front of the frame; leads to `none` where the driver leaves no room. */
function makeRoom(asm: Assembler, none: Label): void {
  asm.move(R.r1, CONTEXT);
  asm.constant(R.r2, -SIZE);
  asm.call("xdp_adjust_meta");
  asm.jump64("ne", R.r0, 0, none);
  asm.load(R.r1, CONTEXT, DATA_META, 4);
  asm.load(R.r2, CONTEXT, DATA, 4);
  asm.move(R.r3, R.r1);
  asm.alu64("add", R.r3, SIZE);
  asm.jump64Register("gt", R.r3, R.r2, none);
}
