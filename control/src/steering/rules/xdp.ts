// The XDP program of a filter: matching frames go to the AF_XDP socket of their queue, all others to the kernel.
import type { BpfMap, ProgramSource } from "../../kernel.js";
import type { Filter } from "./compile.js";
import { Assembler, R, type KernelCall } from "./ebpf.js";
import { writeHints, type Hint } from "./hints.js";
import {
  CONTEXT,
  copyPrefix,
  LENGTH,
  loadThroughHelper,
  SCRATCH,
  translate,
  type FrameAccess,
} from "./translate.js";

/** Verdicts (linux/bpf.h, enum xdp_action). */
export const XDP_PASS = 2;
export const XDP_REDIRECT = 4;
/** Offset of rx_queue_index in struct xdp_md (linux/bpf.h). */
export const RX_QUEUE_INDEX = 16;

/** Keys of the counters' map: a percpu-array of two 64-bit values. */
export const COUNTER = { matched: 0, passed: 1 } as const;

/** Where matching frames go, and what is counted. */
export interface XdpTarget {
  /** XSKMAP or DEVMAP. A key without an entry passes the frame to the kernel. */
  readonly map: BpfMap;
  /** The key: the queue that the frame arrived on (the default), or a fixed number. */
  readonly key?: "queue" | number;
  /** percpu-array, 2 entries of 8 bytes: frames matched, frames passed. */
  readonly counters?: BpfMap;
  /** What the driver is asked of a matching frame; the answers stand in front of it. None when left out. */
  readonly hints?: readonly Hint[];
}

/** An XDP program; one that calls the kernel's functions has to be loaded for the device it is meant for. */
export interface XdpSource extends ProgramSource {
  readonly calls: readonly KernelCall[];
}

/** How an XDP program gets at its frame. */
export const ACCESS: FrameAccess = {
  minimumPrefix: 14,
  prologue(asm, buffer, prefix, reject) {
    asm.move(R.r1, CONTEXT);
    asm.call("xdp_get_buff_len");
    asm.move(LENGTH, R.r0);
    copyPrefix(asm, "xdp_load_bytes", { from: 0, to: buffer, count: prefix, available: LENGTH }, reject);
  },
  loadComputed(asm, size, _buffer, reject) {
    loadThroughHelper(asm, "xdp_load_bytes", size, reject);
  },
};

/**
 * The XDP program of a filter. It reads through bpf_xdp_load_bytes (kernel 5.18), so that it verifies with
 * CAP_BPF and CAP_NET_ADMIN alone, and takes frames of several buffers.
 */
export function xdpProgram(filter: Filter, target: XdpTarget): XdpSource {
  const ends = {
    match: (asm: Assembler): void => redirect(asm, target),
    pass: (asm: Assembler): void => pass(asm, target),
  };
  const { instructions, maps, calls } =
    filter.tree.kind === "all" ? wholeCard(target) : translate(filter, { access: ACCESS, ...ends });
  return { type: "xdp", name: "bifurcate", instructions, maps, calls, fragments: true };
}

/** Every frame is redirected: no byte is read. */
function wholeCard(target: XdpTarget): ReturnType<Assembler["finish"]> {
  const asm = new Assembler();
  asm.move(CONTEXT, R.r1);
  redirect(asm, target);
  return asm.finish();
}

function redirect(asm: Assembler, target: XdpTarget): void {
  if (target.counters !== undefined) count(asm, target.counters, COUNTER.matched);
  if (target.hints !== undefined && target.hints.length > 0) writeHints(asm, target.hints);
  const key = target.key ?? "queue";
  if (key === "queue") asm.load(R.r2, CONTEXT, RX_QUEUE_INDEX, 4);
  else asm.constant(R.r2, key);
  asm.loadMap(R.r1, target.map);
  asm.constant(R.r3, XDP_PASS);
  asm.call("redirect_map");
  asm.exit();
}

function pass(asm: Assembler, target: XdpTarget): void {
  if (target.counters !== undefined) count(asm, target.counters, COUNTER.passed);
  asm.constant(R.r0, XDP_PASS);
  asm.exit();
}

/** counters[key] += 1, on this CPU. */
export function count(asm: Assembler, counters: BpfMap, key: number): void {
  const absent = asm.label("absent");
  asm.storeConstant(R.fp, SCRATCH, key, 4);
  asm.loadMap(R.r1, counters);
  asm.move(R.r2, R.fp);
  asm.alu64("add", R.r2, SCRATCH);
  asm.call("map_lookup_elem");
  asm.jump64("eq", R.r0, 0, absent);
  asm.load(R.r1, R.r0, 0, 8);
  asm.alu64("add", R.r1, 1);
  asm.store(R.r0, 0, R.r1, 8);
  asm.place(absent);
}
