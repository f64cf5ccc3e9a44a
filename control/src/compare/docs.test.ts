// The pages of docs/mechanisms: one a mechanism, each with the path of a frame and who owns which memory.
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { KNOWN } from "./known/index.js";

const docs = new URL("../../../docs/", import.meta.url);
const page = (name: string): string => readFileSync(new URL(name, docs), "utf8");
const file = (mechanism: string): string => `${mechanism.toLowerCase().replaceAll(/[ _]/g, "-")}.md`;

describe("docs/mechanisms", () => {
  for (const mechanism of Object.keys(KNOWN)) {
    it(mechanism, () => {
      const text = page(`mechanisms/${file(mechanism)}`);
      expect(text.split("\n")[0]).toBe(`# ${mechanism}`);
      expect(text).toMatch(/## The path of a frame\n\n```\n/);
      expect(text).toContain("## Who owns which memory\n");
      expect(page("mechanisms/README.md")).toContain(`[${mechanism}](${file(mechanism)})`);
    });
  }

  it("are what statements of the comparison name as their source", () => {
    const named = Object.values(KNOWN)
      .flatMap((known) => Object.values(known).map(({ source }) => source))
      .flatMap((source) => [...source.matchAll(/docs\/[\w/-]+\.md/g)].map(([name]) => name));
    expect(named.length).toBeGreaterThan(10);
    for (const name of new Set(named)) expect(existsSync(new URL(`../${name}`, docs)), name).toBe(true);
  });
});

describe("docs/comparison.md", () => {
  it("has every mechanism, and the command that made it", () => {
    const text = page("comparison.md");
    for (const mechanism of Object.keys(KNOWN)) expect(text).toContain(`### ${mechanism}\n`);
    expect(text).toContain("bifurcate compare --run");
  });
});
