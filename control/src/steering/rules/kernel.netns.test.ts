// The eBPF programs give the interpreter's verdict in the running kernel: XDP, tc and socket filters.
import fc from "fast-check";
import { spawnSync } from "node:child_process";
import { afterAll, describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile, compileAny, type Filter } from "./compile.js";
import { matches } from "./interpret.js";
import { passMarkProgram, socketFilterProgram, tcDropProgram } from "./skb.js";
import { cannotLoad, createMap, loadProgram, type TestMap } from "./testing/bpf.js";
import { ACCEPTED } from "./testing/corpus.js";
import { expression } from "./testing/expressions.js";
import { frame } from "./testing/packets.js";
import { COUNTER, xdpProgram, XDP_PASS, XDP_REDIRECT } from "./xdp.js";

const reason = cannotLoad();
const maps: TestMap[] = [];
afterAll(() => maps.forEach((map) => map.close()));

/** A DEVMAP with the loopback device at key 0: a lookup that succeeds, without an AF_XDP socket. */
function target(): TestMap {
  const map = createMap("devmap", 4, 4, 1);
  map.update(Uint8Array.of(0, 0, 0, 0), Uint8Array.of(1, 0, 0, 0));
  maps.push(map);
  return map;
}

function compileOrNull(source: string): Filter | null {
  try {
    return compile(source);
  } catch (error) {
    if (error instanceof BifurcateError) return null;
    throw error;
  }
}

describe.skipIf(reason !== null)(`in the kernel${reason === null ? "" : ` (${reason})`}`, () => {
  it("gives the interpreter's verdict from XDP, tc and socket filter", () => {
    const map = target();
    let [tried, matched] = [0, 0];
    fc.assert(
      // The kernel's test run takes no frame shorter than an Ethernet header.
      fc.property(
        expression,
        fc.array(
          frame.filter((bytes) => bytes.length >= 14),
          { minLength: 6, maxLength: 12 },
        ),
        (source, frames) => {
          const filter = compileOrNull(source);
          if (filter === null) return;
          const xdp = loadProgram(xdpProgram(filter, { map }));
          const tc = loadProgram(tcDropProgram(filter));
          const socket = loadProgram(socketFilterProgram(filter));
          try {
            for (const bytes of frames) {
              const expected = matches(filter.program, bytes);
              const what = `'${source}' on ${Buffer.from(bytes).toString("hex")}`;
              tried++;
              if (expected) matched++;
              expect(xdp.run(bytes), `xdp: ${what}`).toBe(expected ? XDP_REDIRECT : XDP_PASS);
              // As a packet buffer it wants a whole network header behind it.
              if (bytes.length >= 14 + 40) expect(tc.run(bytes) | 0, `tc: ${what}`).toBe(expected ? 2 : -1);
            }
          } finally {
            [xdp, tc, socket].forEach((program) => program.close());
          }
        },
      ),
      { numRuns: Number(process.env["RUNS"] ?? 500) },
    );
    expect(matched).toBeGreaterThan(tried / 50);
  });

  it("runs several flows in one program", () => {
    const map = target();
    const long = frame.filter((bytes) => bytes.length >= 14);
    fc.assert(
      fc.property(expression, expression, fc.array(long, { minLength: 8, maxLength: 12 }), (a, b, frames) => {
        if (compileOrNull(a) === null || compileOrNull(b) === null) return;
        const filter = compileAny([a, b]);
        const program = loadProgram(xdpProgram(filter, { map }));
        for (const bytes of frames) {
          const what = `'${a}', '${b}' on ${Buffer.from(bytes).toString("hex")}`;
          expect(program.run(bytes), what).toBe(matches(filter.program, bytes) ? XDP_REDIRECT : XDP_PASS);
        }
        program.close();
      }),
      { numRuns: 200 },
    );
  });

  it("computes as the interpreter does where machines differ", () => {
    const map = target();
    // ether[0] is the shift or the divisor, ether[1] the other operand.
    const bytes = (first: number, second: number): Uint8Array => {
      const frame = new Uint8Array(60);
      frame.set([first, second]);
      return frame;
    };
    for (const operator of ["<<", ">>", "/", "%", "-", "*"]) {
      const filter = compile(`(ether[1] ${operator} ether[len - len]) & 0xff = 1`);
      const not = compile(`not (ether[1] ${operator} ether[len - len]) & 0xff = 1`);
      for (const { program, source } of [filter, not]) {
        const loaded = loadProgram(xdpProgram({ ...filter, program, source }, { map }));
        for (const first of [0, 1, 2, 31, 32, 33, 63, 64, 255]) {
          for (const second of [0, 1, 2, 3, 255]) {
            const frame = bytes(first, second);
            const expected = matches(program, frame) ? XDP_REDIRECT : XDP_PASS;
            expect(loaded.run(frame), `${source}: ${first}, ${second}`).toBe(expected);
          }
        }
        loaded.close();
      }
    }
  });

  it("sends every frame of a whole card, and passes it where its queue has no socket", () => {
    const all = compile("all");
    const frame = new Uint8Array(60);
    const redirect = loadProgram(xdpProgram(all, { map: target() }));
    expect(redirect.run(frame)).toBe(XDP_REDIRECT);
    const empty = createMap("xskmap", 4, 4, 4);
    const counters = createMap("percpu-array", 4, 8, 2);
    maps.push(empty, counters);
    const passing = loadProgram(xdpProgram(all, { map: empty, counters }));
    expect(passing.run(frame)).toBe(XDP_PASS);
    expect(total(counters, COUNTER.matched)).toBe(1);
    expect(total(counters, COUNTER.passed)).toBe(0);
    [redirect, passing].forEach((program) => program.close());
  });

  it("counts what matches and what passes", () => {
    const counters = createMap("percpu-array", 4, 8, 2);
    maps.push(counters);
    const program = loadProgram(xdpProgram(compile("greater 100"), { map: target(), counters }));
    for (const length of [60, 99, 100, 101, 1500]) program.run(new Uint8Array(length));
    program.close();
    expect(total(counters, COUNTER.matched)).toBe(3);
    expect(total(counters, COUNTER.passed)).toBe(2);
  });

  it("takes a filter with far jumps and hundreds of alternatives", () => {
    const hosts = Array.from({ length: 300 }, (_, index) => `10.0.${index >> 8}.${index & 255}`);
    const filter = compile(`ip src host (${hosts.join(" or ")}) and not udp port 53`);
    expect(filter.program.length).toBeGreaterThan(300);
    const program = loadProgram(xdpProgram(filter, { map: target() }));
    const frames = [0, 1, 255, 299, 300].map((index) => {
      const bytes = new Uint8Array(60);
      bytes.set([8, 0, 0x45], 12);
      bytes.set([10, 0, index >> 8, index & 255], 26);
      return bytes;
    });
    for (const bytes of frames) {
      expect(program.run(bytes)).toBe(matches(filter.program, bytes) ? XDP_REDIRECT : XDP_PASS);
    }
    expect(frames.map((bytes) => matches(filter.program, bytes))).toEqual([true, true, true, true, false]);
    program.close();
  });

  it("loads with CAP_BPF and CAP_NET_ADMIN alone", () => {
    const sources = ACCEPTED.map((expression) => compile(expression));
    const programs = sources.flatMap((filter) => {
      // The child makes the map; here only the places matter.
      const map = { fd: 0 } as TestMap;
      return [xdpProgram(filter, { map }), tcDropProgram(filter), socketFilterProgram(filter)];
    });
    const input = [...programs, passMarkProgram()].map(({ type, instructions, maps: uses }) => ({
      type: { xdp: 6, "sched-cls": 3, "socket-filter": 1 }[type],
      instructions: Buffer.from(instructions).toString("hex"),
      maps: uses.map(({ instruction }) => instruction),
    }));
    const run = spawnSync(
      "setpriv",
      ["--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all", process.execPath, "-e", LIMITED_CHILD],
      { input: JSON.stringify(input), encoding: "utf8", maxBuffer: 1 << 26 },
    );
    expect(run.stderr).toBe("");
    const result = JSON.parse(run.stdout) as { capabilities: string; loaded: number; failed: unknown[] };
    // CAP_NET_ADMIN is 12, CAP_BPF 39.
    expect(BigInt(`0x${result.capabilities}`)).toBe((1n << 12n) | (1n << 39n));
    expect(result.failed).toEqual([]);
    expect(result.loaded).toBe(input.length);
  });
});

/** Loads programs from standard input in a process with fewer capabilities. */
const LIMITED_CHILD = `
  const fs = require("node:fs");
  const koffi = require("koffi");
  const libc = koffi.load("libc.so.6");
  koffi.struct("map_create", { type: "uint32_t", key: "uint32_t", value: "uint32_t", entries: "uint32_t" });
  koffi.struct("prog_load", { type: "uint32_t", count: "uint32_t", instructions: "void *", license: "void *",
    level: "uint32_t", size: "uint32_t", log: "void *", version: "uint32_t", flags: "uint32_t" });
  const bpf = (type) => libc.func("long syscall(long, long, _Inout_ " + type + " *, unsigned int)");
  const [create, load] = [bpf("map_create"), bpf("prog_load")];
  const map = create(321, 0, { type: 17, key: 4, value: 4, entries: 4 }, 16);
  const failed = [];
  let loaded = 0;
  for (const [index, program] of JSON.parse(fs.readFileSync(0, "utf8")).entries()) {
    const instructions = Buffer.from(program.instructions, "hex");
    for (const at of program.maps) instructions.writeInt32LE(map, at * 8 + 4);
    const log = Buffer.alloc(1 << 16);
    const attributes = { type: program.type, count: instructions.length / 8, instructions,
      license: Buffer.from("Apache-2.0\\0"), level: 0, size: 0, log: null, version: 0, flags: program.type === 6 ? 0x20 : 0 };
    const fd = load(321, 5, attributes, koffi.sizeof("prog_load"));
    if (fd >= 0) loaded++;
    else failed.push({ index, errno: koffi.errno() });
    if (fd >= 0) fs.closeSync(fd);
  }
  const capabilities = /^CapEff:\\s*(\\w+)/m.exec(fs.readFileSync("/proc/self/status", "utf8"))[1];
  console.log(JSON.stringify({ capabilities, loaded, failed }));
`;

/** A counter's sum over all CPUs. */
function total(counters: TestMap, key: number): number {
  const values = counters.lookup(Uint8Array.of(key, 0, 0, 0))!;
  const view = new DataView(values.buffer);
  let sum = 0n;
  for (let at = 0; at < values.length; at += 8) sum += view.getBigUint64(at, true);
  return Number(sum);
}
