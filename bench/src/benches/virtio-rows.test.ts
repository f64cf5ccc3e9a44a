// The rows and tables of the virtio bench: what is left out where nobody counted, and what is lost and said.
import { expect, it } from "vitest";
import { toLine, toText } from "../rows.js";
import { drawn, rows, tables, tripRows, type Run, type Trip } from "./virtio-rows.js";

const run = (pps: number, cycles: number | null, far: number | null): Run => ({
  pps,
  cycles,
  far,
  command: `near ${pps}`,
  farCommand: `far ${pps}`,
});
const trip = (p50: number, lost: number): Trip => ({
  ...{ p50, p99: 2 * p50, p999: 3 * p50, trips: 100, lost },
  ...{ command: "prober", farCommand: "reflector" },
});

const ours = [run(3e6, 50, 80), run(2e6, 60, 100), run(4e6, 70, 90)];
const peer = [run(2e6, 100, 70), run(2e6, 120, 90), run(2e6, 140, 80)];

it("gives the rate, the cycles of both sides, and the cycles of both far ends", () => {
  const results = rows("driver", 1, ours, peer);
  expect(results.map((result) => JSON.parse(toLine(result)) as unknown)).toMatchObject(
    [
      { row: "driver", ours: 3e6, peer: 2e6, ratio: 1.5, unit: "packets/s" },
      { row: "driver cycles", ours: 60, peer: 120, ratio: 2, unit: "busy cycles a packet" },
      {
        row: "driver far cycles",
        ours: 90,
        peer: 80,
        ratio: 0.89,
        unit: "busy cycles a packet of the far end",
      },
    ].map((row) => ({ ...row, ratio: expect.closeTo(row.ratio, 1) as number })),
  );
  expect(results.map((result) => result.target)).toEqual([1, 1, null]);
  expect(toText(results[0]!)).toContain("near 3000000");
  expect(toText(results[0]!)).toContain("far end    far 2000000");
});

it("leaves out the cycles that one side does not count", () => {
  const uncounted = ours.map((one) => ({ ...one, cycles: null }));
  expect(rows("ts", 0.8, uncounted, peer).map(({ row }) => row)).toEqual(["ts", "ts far cycles"]);
});

it("says how many round trips were lost", () => {
  const results = tripRows([trip(100, 0), trip(120, 3)], [trip(90, 0), trip(90, 1)]);
  expect(results.map(({ row }) => row)).toEqual(["round trip p50", "round trip p99", "round trip p999"]);
  expect(results[0]).toMatchObject({ ours: 110, peer: 90, commands: { ours: "prober" } });
  expect(toText(results[2]!)).toContain("lost with ours 3 of 203; with the peer 1 of 201");
});

it("draws everything but far ends, and tables everything", () => {
  const results = [
    ...rows("driver", 1, ours, peer),
    ...rows(
      "ts",
      4,
      ours.map((one) => ({ ...one, cycles: null })),
      peer,
    ),
    ...tripRows([trip(100, 0)], [trip(90, 2)]),
  ];
  expect(drawn(results).map(({ row }) => row)).not.toContain("driver far cycles");
  expect(drawn(results)).toHaveLength(results.length - 2);
  const lines = tables(results).split("\n");
  const cells = (line: string) => line.split("|").map((cell) => cell.trim());
  expect(cells(lines[2]!).slice(1, -1)).toEqual([
    ...[
      "driver",
      "**1.50** (1.00 to 2.00)",
      "1: reached",
      "60.0",
      "120",
      "2.00 (2.00 to 2.00)",
      "90.0",
      "80.0",
    ],
  ]);
  expect(cells(lines[3]!).slice(1, -1)).toEqual([
    ...["ts", "**1.50** (1.00 to 2.00)", "4: not reached", "-", "-", "-", "90.0", "80.0"],
  ]);
  expect(cells(lines[7]!).slice(1, -1)).toEqual(["p50", "100 ns", "90.0 ns", "0.90 (0.90 to 0.90)"]);
  expect(lines.at(-2)).toBe("Round trips lost with ours 0 of 100; with the peer 2 of 102.");
  // Ready for a page that prettier holds.
  const widths = lines.slice(0, 4).map((line) => line.length);
  expect(new Set(widths).size).toBe(1);
});
