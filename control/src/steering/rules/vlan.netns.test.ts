// Filters over packet buffers see the frame as it was on the wire, with the tag that the kernel took out.
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile, type Filter } from "./compile.js";
import { Assembler, R } from "./ebpf.js";
import { matches } from "./interpret.js";
import { passMarkProgram, socketFilterProgram, tcDropProgram } from "./skb.js";
import { cannotLoad, createMap, loadProgram, type TestMap } from "./testing/bpf.js";
import { expression } from "./testing/expressions.js";
import { frame } from "./testing/packets.js";
import { layWire, type RawSocket, type Wire } from "./testing/wire.js";

const reason = cannotLoad();

function compileOrNull(source: string): Filter | null {
  try {
    return compile(source);
  } catch (error) {
    if (error instanceof BifurcateError) return null;
    throw error;
  }
}

/** Counts what gets as far as this program, and lets it go on. */
function countingProgram(map: TestMap): ReturnType<typeof loadProgram> {
  const asm = new Assembler();
  const absent = asm.label("absent");
  asm.storeConstant(R.fp, -8, 0, 4);
  asm.loadMap(R.r1, map);
  asm.move(R.r2, R.fp);
  asm.alu64("add", R.r2, -8);
  asm.call("map_lookup_elem");
  asm.jump64("eq", R.r0, 0, absent);
  asm.load(R.r1, R.r0, 0, 8);
  asm.alu64("add", R.r1, 1);
  asm.store(R.r0, 0, R.r1, 8);
  asm.place(absent);
  asm.constant(R.r0, -1);
  asm.exit();
  return loadProgram({ type: "sched-cls", name: "count", ...asm.finish() });
}

/** The kernel throws a frame away with less than two bytes behind its outer tag; below 14 bytes none can be sent. */
function survives(bytes: Uint8Array): boolean {
  const type = ((bytes[12] ?? 0) << 8) | (bytes[13] ?? 0);
  return bytes.length > 14 && (bytes.length >= 20 || (type !== 0x8100 && type !== 0x88a8));
}

describe.skipIf(reason !== null)(`on a veth pair${reason === null ? "" : ` (${reason})`}`, () => {
  let wire: Wire;
  let sender: RawSocket;
  let witness: RawSocket;
  let taker: RawSocket;
  let counter: TestMap;
  const passed = (): number =>
    Number(new DataView(counter.lookup(new Uint8Array(4))!.buffer).getBigUint64(0, true));

  beforeAll(() => {
    wire = layWire();
    sender = wire.open("near");
    // The kernel hands a frame to the newest socket first: when the witness has it, the taker had its turn.
    witness = wire.open("far");
    taker = wire.open("far");
    counter = createMap("array", 4, 8, 1);
  });
  afterAll(() => {
    for (const socket of [sender, witness, taker]) socket?.close();
    counter?.close();
    wire?.leave();
  });

  /** Sends frames through the programs; which of them the taker got, and how many went on to the kernel. */
  function exchange(
    filter: Filter,
    frames: readonly Uint8Array[],
    marked: boolean,
  ): { taken: boolean[]; passed: number } {
    const programs = {
      mark: loadProgram(passMarkProgram()),
      drop: loadProgram(tcDropProgram(filter)),
      count: countingProgram(counter),
      take: loadProgram(socketFilterProgram(filter)),
    };
    taker.attach(programs.take.fd);
    while (witness.receive(false) !== null);
    const attached = [...(marked ? [programs.mark] : []), programs.drop, programs.count].map(({ fd }) =>
      wire.attachIngress(fd),
    );
    try {
      const before = passed();
      const taken = frames.map((bytes) => {
        sender.send(bytes);
        expect(witness.receive(true), "the frame arrives").not.toBeNull();
        return taker.receive(false) !== null;
      });
      return { taken, passed: passed() - before };
    } finally {
      attached.forEach((detach) => detach());
      Object.values(programs).forEach((program) => program.close());
    }
  }

  it("takes and drops exactly what the expression matches on the wire", () => {
    let [tagged, matched, all] = [0, 0, 0];
    fc.assert(
      fc.property(
        expression,
        fc.array(frame.filter(survives), { minLength: 6, maxLength: 12 }),
        (source, frames) => {
          const filter = compileOrNull(source);
          if (filter === null) return;
          const expected = frames.map((bytes) => matches(filter.program, bytes));
          const result = exchange(filter, frames, false);
          const what = `'${source}' on ${frames.map((bytes) => Buffer.from(bytes).toString("hex")).join(" ")}`;
          expect(result.taken, what).toEqual(expected);
          expect(result.passed, what).toBe(expected.filter((match) => !match).length);
          all += frames.length;
          matched += expected.filter(Boolean).length;
          tagged += frames.filter((bytes) => bytes[12] === 0x81).length;
        },
      ),
      { numRuns: Number(process.env["RUNS"] ?? 120) },
    );
    expect(matched).toBeGreaterThan(all / 50);
    expect(tagged).toBeGreaterThan(all / 20);
  });

  it("reads at computed offsets across the place of the tag", () => {
    const frames = fc.sample(frame.filter(survives), { numRuns: 40, seed: 1 });
    for (let offset = 6; offset < 20; offset++) {
      for (const size of [1, 2, 4]) {
        const filter = compile(`ether[len - len + ${offset}:${size}] & 0x81 != 0`);
        const expected = frames.map((bytes) => matches(filter.program, bytes));
        expect(exchange(filter, frames, false).taken, filter.source).toEqual(expected);
      }
    }
  });

  it("lets frames go on that carry the pass mark", () => {
    const frames = fc.sample(frame.filter(survives), { numRuns: 10, seed: 2 });
    const all = compile("len > 0");
    expect(exchange(all, frames, false).passed).toBe(0);
    // Sockets stand before tc, so the mark of this far end comes too late for them.
    expect(exchange(all, frames, true).passed).toBe(frames.length);
  });
});
