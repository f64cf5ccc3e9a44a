// The eBPF programs give the interpreter's verdict in the running kernel: XDP, tc and socket filters.
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { BifurcateError } from "../../errors.js";
import { compile, type Filter } from "./compile.js";
import { matches } from "./interpret.js";
import { socketFilterProgram, tcDropProgram } from "./skb.js";
import { cannotLoad, createMap, loadProgram, type TestMap } from "./testing/bpf.js";
import { expression } from "./testing/expressions.js";
import { frame } from "./testing/packets.js";
import { xdpProgram, XDP_PASS, XDP_REDIRECT } from "./xdp.js";

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
});
