// The programs of leases: one on the card that knows every lease's flow, and those on the ports and the way back.
import type { BpfMap, ProgramSource } from "../../kernel.js";
import type { Filter } from "./compile.js";
import { Assembler, R } from "./ebpf.js";
import { PASS_MARK, returns, SKB, SKB_ACCESS } from "./skb.js";
import { A, CONTEXT, finish, SCRATCH, translateInto } from "./translate.js";
import { ACCESS, count, RX_QUEUE_INDEX, XDP_PASS } from "./xdp.js";

/** Verdict of XDP (linux/bpf.h, enum xdp_action). */
const XDP_DROP = 1;
/** Verdict of tc (linux/pkt_cls.h). */
const TC_ACT_SHOT = 2;
/** Flag of bpf_redirect: to the receive path of the interface instead of its transmit path (linux/bpf.h). */
const BPF_F_INGRESS = 1;

/** Keys of a port's counters: a percpu-array of three 64-bit values. */
export const SENT = { allowed: 0, denied: 1, limited: 2 } as const;

/** Frames may come this much earlier than their rate says, in a burst: ns. */
const BURST_NS = 10_000_000;

/** How many frames a second a port may let out. */
export interface Rate {
  /** array, 1 entry of 8 bytes: when the next frame is due, ns since boot. */
  readonly bucket: BpfMap;
  readonly perSecond: number;
}

/** One lease on a card. */
export interface CardEntry {
  readonly filter: Filter;
  /** Its key in the DEVMAP. */
  readonly slot: number;
  /** The card's queues that are the lease's own; null: it has a port. */
  readonly queues: readonly number[] | null;
  /** XSKMAP: the port gets its frames while this holds a socket for queue 0; null: in any case. */
  readonly present?: BpfMap | null;
}

/** Where the frames of leases go. */
export interface CardMaps {
  /** DEVMAP: by a lease's slot, its port's near end. */
  readonly ports: BpfMap;
  /** XSKMAP: by the card's queue, the socket of the lease that has it. */
  readonly sockets: BpfMap;
}

/**
 * The program on a card: a frame of a lease's flow goes to the lease's port, or to its socket where it came on a queue
 * of its own; all others go to the kernel. A slot or a queue without an entry, since the lease ended or the port was
 * deleted, means the kernel too.
 */
export function cardProgram(entries: readonly CardEntry[], { ports, sockets }: CardMaps): ProgramSource {
  const asm = new Assembler();
  asm.move(CONTEXT, R.r1);
  let open = true;
  for (const { filter, slot, queues, present = null } of entries) {
    const match = (): void => {
      if (present !== null) passUnlessHeld(asm, present);
      asm.loadMap(R.r1, queues === null ? ports : sockets);
      if (queues === null) asm.constant(R.r2, slot);
      else asm.load(R.r2, CONTEXT, RX_QUEUE_INDEX, 4);
      asm.constant(R.r3, XDP_PASS);
      asm.call("redirect_map");
      asm.exit();
    };
    const all = filter.tree.kind === "all";
    if (all && queues === null) {
      match();
      open = false;
      break;
    }
    // Another lease's queue has a socket in the map too, and this flow is not for it.
    const [own, other] = [asm.label("own queue"), asm.label("another queue")];
    if (queues !== null) {
      asm.load(R.r1, CONTEXT, RX_QUEUE_INDEX, 4);
      for (const queue of queues) asm.jump32("eq", R.r1, queue, own);
      asm.goto(other);
      asm.place(own);
    }
    if (all) match();
    else translateInto(asm, filter, { access: ACCESS, match, pass: () => undefined });
    if (queues !== null) asm.place(other);
  }
  if (open) returns(asm, XDP_PASS);
  const { instructions, maps } = finish(asm, entries.map(({ filter }) => filter.source).join(", "));
  return { type: "xdp", name: "bifurcated", instructions, maps, fragments: true };
}

/** To the kernel with the frame, unless the map has a socket for queue 0. */
function passUnlessHeld(asm: Assembler, sockets: BpfMap): void {
  const held = asm.label("held");
  asm.storeConstant(R.fp, SCRATCH, 0, 4);
  asm.loadMap(R.r1, sockets);
  asm.move(R.r2, R.fp);
  asm.alu64("add", R.r2, SCRATCH);
  asm.call("map_lookup_elem");
  asm.jump64("ne", R.r0, 0, held);
  returns(asm, XDP_PASS);
  asm.place(held);
}

/**
 * The program where a port's frames come out on their way to the card: only what the filter matches goes on; null: all
 * of it; "nothing": none.
 */
export function transmitProgram(
  allowed: Filter | null | "nothing",
  counters: BpfMap,
  rate: Rate | null,
): ProgramSource {
  const asm = new Assembler();
  asm.move(CONTEXT, R.r1);
  const allow = (): void => {
    if (rate !== null) limit(asm, rate, counters);
    count(asm, counters, SENT.allowed);
    returns(asm, XDP_PASS);
  };
  if (allowed === null) allow();
  else {
    if (allowed !== "nothing") {
      translateInto(asm, allowed, { access: ACCESS, match: allow, pass: () => undefined });
    }
    count(asm, counters, SENT.denied);
    returns(asm, XDP_DROP);
  }
  const source = allowed === null || allowed === "nothing" ? "" : allowed.source;
  const { instructions, maps } = finish(asm, source);
  return { type: "xdp", name: "bifurcated_tx", instructions, maps, fragments: true };
}

/**
 * Drops the frame when it comes before it is due; else the next one is due 1/rate later (the generic cell rate
 * algorithm, ITU-T I.371). Two processors at the same moment may count one frame for two: a limit, no exact one.
 */
function limit(asm: Assembler, { bucket, perSecond }: Rate, counters: BpfMap): void {
  const [early, due, done] = [asm.label("early"), asm.label("due"), asm.label("in time")];
  asm.call("ktime_get_ns");
  asm.move(A, R.r0);
  asm.storeConstant(R.fp, SCRATCH, 0, 4);
  asm.loadMap(R.r1, bucket);
  asm.move(R.r2, R.fp);
  asm.alu64("add", R.r2, SCRATCH);
  asm.call("map_lookup_elem");
  asm.jump64("eq", R.r0, 0, early);
  asm.load(R.r1, R.r0, 0, 8);
  asm.move(R.r2, A);
  asm.alu64("add", R.r2, BURST_NS);
  asm.jump64Register("gt", R.r1, R.r2, early);
  asm.jump64Register("ge", R.r1, A, due);
  asm.move(R.r1, A);
  asm.place(due);
  asm.alu64("add", R.r1, Math.max(1, Math.round(1e9 / perSecond)));
  asm.store(R.r0, 0, R.r1, 8);
  asm.goto(done);
  asm.place(early);
  count(asm, counters, SENT.limited);
  returns(asm, XDP_DROP);
  asm.place(done);
}

/** For tc ingress: every frame leaves by the interface, or with `ingress` arrives on it; drops with null. */
export function redirectProgram(ifindex: number | null, ingress: boolean): ProgramSource {
  const asm = new Assembler();
  redirect(asm, ifindex, ingress);
  const { instructions, maps } = asm.finish();
  return { type: "sched-cls", name: "bifurcated_go", instructions, maps };
}

/** For tc ingress of a return port: a frame of the lease's own flow arrives on the card, marked; others are dropped. */
export function returnProgram(filter: Filter, ifindex: number): ProgramSource {
  const asm = new Assembler();
  asm.move(CONTEXT, R.r1);
  const match = (): void => {
    asm.constant(R.r2, PASS_MARK);
    asm.store(CONTEXT, SKB.tcIndex, R.r2, 4);
    redirect(asm, ifindex, true);
  };
  if (filter.tree.kind === "all") match();
  else translateInto(asm, filter, { access: SKB_ACCESS, match, pass: (end) => returns(end, TC_ACT_SHOT) });
  const { instructions, maps } = finish(asm, filter.source);
  return { type: "sched-cls", name: "bifurcated_pass", instructions, maps };
}

function redirect(asm: Assembler, ifindex: number | null, ingress: boolean): void {
  if (ifindex === null) return returns(asm, TC_ACT_SHOT);
  asm.constant(R.r1, ifindex);
  asm.constant(R.r2, ingress ? BPF_F_INGRESS : 0);
  asm.call("redirect");
  asm.exit();
}
