// The comparison: no cell empty, each statement with its kind and source, measurements where they belong.
import { describe, expect, it } from "vitest";
import { readCard } from "../doctor/card.js";
import { readMachine } from "../doctor/machine.js";
import { MECHANISMS } from "../doctor/mechanisms/index.js";
import { fakeFiles } from "../testing/fake-files.js";
import { fakeCard, FakeKernel } from "../testing/fake-kernel.js";
import { compare, micro, percent, rate, type Comparison } from "./compare.js";
import { CRITERION_NAMES } from "./criteria.js";
import { BASELINE, KNOWN } from "./known/index.js";
import type { Measurement, Outcome } from "./measurement.js";
import { CLAIMS } from "./thread-2014.js";

const traffic = { sent: 1000, answered: 990, p50: 50, p99: 400 };
const measurement: Measurement = {
  saturated: { offered: 500_000, received: 400_000, loss: 0.2, cpuPerPacket: 300, cpu: 0.12 },
  latency: { offered: 10_000, loss: 0, p50: 20, p99: 90, cpuPerPacket: 900 },
  kernel: {
    quiet: { ...traffic, answered: 1000 },
    saturated: traffic,
    stopped: { ...traffic, answered: 0, p50: null, p99: null },
  },
  path: "af_xdp, copy",
};

function comparison(outcomes: ReadonlyMap<string, Outcome> = new Map(), withCard = true): Comparison {
  const kernel = new FakeKernel([fakeCard()]);
  const files = fakeFiles();
  const card = withCard ? readCard(kernel, kernel.netns, files, "eth0", "/nonexistent") : null;
  const now = new Date("2026-01-01T00:00:00Z");
  return compare({
    machine: readMachine(kernel, files),
    virtual: true,
    processors: 2,
    load: 0.5,
    clock: 2000,
    card,
    outcomes,
    measuredOn: null,
    now,
  });
}

describe("the comparison", () => {
  it("has the baseline and the doctor's mechanisms, in its order, and no others", () => {
    expect(Object.keys(KNOWN)).toEqual([BASELINE, ...MECHANISMS.map(({ name }) => name)]);
  });

  it("fills every cell, and says of each statement how it is known and from where", () => {
    for (const made of [comparison(), comparison(new Map(), false)]) {
      for (const { mechanism, cells } of made.mechanisms) {
        expect(Object.keys(cells)).toEqual(CRITERION_NAMES);
        for (const [criterion, statements] of Object.entries(cells)) {
          expect(statements.length, `${mechanism}: ${criterion}`).toBeGreaterThan(0);
          for (const { kind, says, source } of statements) {
            expect(["known", "probed", "measured"]).toContain(kind);
            expect(says.length).toBeGreaterThan(1);
            expect(source.length).toBeGreaterThan(1);
          }
        }
      }
    }
  });

  it("asks the doctor's probes what the card lacks, and gives what mends it", () => {
    const rows = comparison().mechanisms;
    const uio = rows.find(({ mechanism }) => mechanism === "uio_pci_generic")!;
    expect(uio.ready).toBe(false);
    expect(uio.cells.hardware.map(({ says }) => says).join()).toMatch(
      /uio_pci_generic.*modprobe uio_pci_generic/,
    );
    expect(rows.find(({ mechanism }) => mechanism === BASELINE)!.ready).toBe(true);
  });

  it("says that no card was looked at where there was none", () => {
    const [first] = comparison(new Map(), false).mechanisms;
    expect(first!.ready).toBeNull();
    expect(first!.cells.hardware.at(-1)!.says).toMatch(/no card was looked at/);
  });

  it("puts what was measured into performance, and what the kernel's traffic felt beside the kernel netdev", () => {
    const { mechanisms } = comparison(
      new Map([["AF_XDP copy", { measured: measurement, by: "bifurcate compare --run" }]]),
    );
    const row = mechanisms.find(({ mechanism }) => mechanism === "AF_XDP copy")!;
    const measured = row.cells.performance.filter(({ kind }) => kind === "measured");
    expect(measured[0]).toEqual({
      kind: "measured",
      says: "400 k packets/s of 500 k offered (20 % lost), 300 ns of CPU a packet (600 cycles at 2000 MHz), 12 % of a processor",
      source: "bifurcate compare --run",
    });
    expect(measured[1]!.says).toBe("one way at 10 k packets/s: p50 20.0 µs, p99 90.0 µs, 0 % lost");
    expect(row.cells.kernelNetdev.at(-1)!.says).toMatch(
      /quiet p50 50\.0 µs, p99 400 µs, 0 % lost; saturated .* 1\.0 % lost; stopped p50 none, p99 none, 100 % lost$/,
    );
    expect(row.measurement).toBe(measurement);
  });

  it("says why a mechanism was not measured", () => {
    const { mechanisms } = comparison(new Map([["verbs", { why: "there is no RDMA device" }]]));
    const says = (name: string) =>
      mechanisms.find(({ mechanism }) => mechanism === name)!.cells.performance.at(-1)!;
    expect(says("verbs")).toMatchObject({ kind: "probed", says: "not measured: there is no RDMA device" });
    expect(says("AF_PACKET").says).toBe("not measured: it was not asked for");
  });

  it("has a claim of 2014 for each criterion", () => {
    expect(CLAIMS.map(({ criterion }) => criterion)).toEqual(CRITERION_NAMES);
  });
});

describe("figures", () => {
  it("are short", () => {
    expect([0, 999, 9_994, 9_995, 412_345, 999_499, 999_500, 1_204_000].map(rate)).toEqual([
      "0",
      "999",
      "9994",
      "10 k",
      "412 k",
      "999 k",
      "1.00 M",
      "1.20 M",
    ]);
    expect([0, 0.00004, 0.003, 0.05, 0.123, 1].map(percent)).toEqual([
      "0 %",
      "0.004 %",
      "0.3 %",
      "5.0 %",
      "12 %",
      "100 %",
    ]);
    expect([null, 3.14159, 99.96, 1234.5, 12_345].map(micro)).toEqual([
      "none",
      "3.1 µs",
      "100.0 µs",
      "1235 µs",
      "12.3 ms",
    ]);
  });
});
