// The pages of docs/mechanisms: one a mechanism, each with the path of a frame and who owns which memory.
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { CRITERION_NAMES } from "./criteria.js";
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

/** What a page of the comparison says of each mechanism by what is known: sentence and source, in the order of the criteria. */
const PAGES: Readonly<Record<string, (mechanism: string) => [string, string][]>> = {
  "comparison.md": (mechanism) => {
    const section = page("comparison.md").split(`### ${mechanism}\n`)[1]!.split("\n### ")[0]!;
    const rows = section.split("\n").map((line) => line.split(/(?<!\\)\|/).map((cell) => cell.trim()));
    return rows.flatMap(([, , says = "", how = ""]) =>
      how.startsWith("known: ")
        ? [[says.replaceAll("\\|", "|"), how.slice("known: ".length)] satisfies [string, string]]
        : [],
    );
  },
  "comparison.html": (mechanism) => {
    const row = page("comparison.html").split(`<tr><th scope="row">${mechanism}<br>`)[1]!.split("</tr>")[0]!;
    const known = row.matchAll(/<span class="tag known">known<\/span> (.*?) <small>(.*?)<\/small>/g);
    return [...known].map(([, says, source]) => [unescape(says!), unescape(source!)]);
  },
};

const CHARACTERS: Readonly<Record<string, string>> = {
  "&amp;": "&",
  "&lt;": "<",
  "&gt;": ">",
  "&quot;": '"',
  "&#39;": "'",
};

function unescape(html: string): string {
  return html.replaceAll(/&[^;]+;/g, (entity) => CHARACTERS[entity] ?? entity);
}

describe("upstream status", () => {
  it.each(Object.entries(KNOWN))(
    "of %s names the kernel version it came with, if it is in tree",
    (_, known) => {
      const { says } = known.upstream;
      if (says.startsWith("in tree")) expect(says).toMatch(/Linux \d+\.\d|every Linux/);
      else expect(says).toMatch(/^(never in tree|no part in the kernel)/);
    },
  );
});

describe("what docs/comparison says is known is what is known now", () => {
  for (const [name, known] of Object.entries(PAGES)) {
    it.each(Object.entries(KNOWN))(`${name}: %s`, (mechanism, facts) => {
      const said = known(mechanism);
      expect(said.length).toBe(CRITERION_NAMES.length);
      CRITERION_NAMES.forEach((criterion, n) => {
        const [says, source] = said[n]!;
        // Before a sentence may stand which cards it was said of.
        expect(says.replace(/^nic\d \(.*?\): /, "")).toBe(facts[criterion].says);
        expect(source).toBe(facts[criterion].source);
      });
    });
  }
});

describe("docs/comparison.md", () => {
  it("has every mechanism, and the command that made it", () => {
    const text = page("comparison.md");
    for (const mechanism of Object.keys(KNOWN)) expect(text).toContain(`### ${mechanism}\n`);
    expect(text).toContain("bifurcate compare --run");
  });
});
