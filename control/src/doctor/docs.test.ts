// docs/doctor.md against the tables it explains: it leaves no finding and no mechanism out, and says their levels.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { FINDINGS } from "./finding.js";
import { MECHANISMS } from "./mechanisms/index.js";

const text = readFileSync(new URL("../../../docs/doctor.md", import.meta.url), "utf8");
const rows = [...text.matchAll(/^\| `([a-z-]+)`\s+\| (problem|advice)\s+\|/gm)].map((row) => [
  row[1],
  row[2],
]);

describe("docs/doctor.md", () => {
  it("has a row for each finding, with its level, and none for what is none", () => {
    expect(Object.fromEntries(rows)).toEqual(FINDINGS);
    expect(rows.length).toBe(Object.keys(FINDINGS).length);
  });

  it("names each mechanism", () => {
    for (const { name } of MECHANISMS) expect(text).toContain(name);
  });
});
