// Comparisons of several cards as one.
import { describe, expect, it } from "vitest";
import type { Statement } from "./cell.js";
import { combine } from "./combine.js";
import type { Comparison } from "./compare.js";
import { CRITERION_NAMES } from "./criteria.js";
import type { Measurement } from "./measurement.js";

const says = (text: string): Statement => ({ kind: "probed", says: text, source: "here" });
const measurement = { path: "af_xdp" } as Measurement;

/** A card with one mechanism, whose cells say the same but for "hardware". */
function part(name: string, hardware: string, more: Partial<Comparison> = {}): Comparison {
  const cells = Object.fromEntries(
    CRITERION_NAMES.map((criterion) => [
      criterion,
      [says(criterion === "hardware" ? hardware : "as everywhere")],
    ]),
  ) as unknown as Comparison["mechanisms"][number]["cells"];
  return {
    ...{
      made: "",
      kernel: "7.3",
      virtual: true,
      processors: 2,
      load: 0,
      clock: null,
      iommu: true,
      measuredOn: null,
    },
    card: { name, driver: "igb", queues: 1 },
    mechanisms: [{ mechanism: "AF_XDP copy", ready: name === "nic1", cells, measurement }],
    ...more,
  };
}

describe("several cards", () => {
  it("share what is said of all of them, and each has its own beside its name", () => {
    const [row] = combine([part("nic0", "no"), part("nic1", "yes")]).mechanisms;
    expect(row!.cells.vm).toEqual([{ ...says("as everywhere"), on: null }]);
    expect(row!.cells.hardware).toEqual([
      { ...says("no"), on: "nic0 (igb)" },
      { ...says("yes"), on: "nic1 (igb)" },
    ]);
    expect(row!.measurements.map(({ on }) => on)).toEqual(["nic0 (igb)", "nic1 (igb)"]);
    expect(row!.ready).toBe(true);
  });

  it("need no name where there is one", () => {
    const [row] = combine([part("nic0", "no")]).mechanisms;
    expect(row!.cells.hardware[0]!.on).toBeNull();
    expect(row!.measurements[0]!.on).toBeNull();
  });

  it("say which machine had no IOMMU, where others had one", () => {
    const [row] = combine([part("nic0", "no"), part("nic0", "yes", { iommu: false })]).mechanisms;
    expect(row!.cells.hardware.map(({ on }) => on)).toEqual(["nic0 (igb)", "nic0 (igb) without an IOMMU"]);
  });

  it("have a mechanism that only one of them was asked for", () => {
    const { mechanisms } = combine([part("nic0", "no"), part("nic1", "yes", { mechanisms: [] })]);
    expect(mechanisms[0]!.cells.vm).toEqual([{ ...says("as everywhere"), on: "nic0 (igb)" }]);
  });
});
