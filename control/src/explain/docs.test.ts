// docs/explain.md against the tables it explains: it leaves no complaint and no stage out.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { COMPLAINTS } from "./complaint.js";
import { STAGES } from "./stages/stage.js";

const text = readFileSync(new URL("../../../docs/explain.md", import.meta.url), "utf8");

describe("docs/explain.md", () => {
  it("has a row for each complaint, and none for what is none", () => {
    const rows = [...text.matchAll(/^\| `([a-z]+(?:-[a-z]+)+)`\s+\|/gm)].map((row) => row[1]);
    expect(rows).toEqual(COMPLAINTS);
  });

  it("has a row for each stage", () => {
    for (const stage of STAGES) expect(text).toMatch(new RegExp(`^\\| ${stage} +\\|`, "m"));
  });
});
