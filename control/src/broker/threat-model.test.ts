// THREAT-MODEL.md against the tests: every "cannot" names one by its own name, and it is there.
import { readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const PLACES = [
  "",
  "control/src/broker/",
  "control/src/protocol/",
  "control/src/steering/rules/",
  "datapath/tests/",
];

/** The file that a row calls by this name. */
function fileOf(name: string): string | undefined {
  const names = [name, `bifurcate/src/lease/${name}.netns.test.ts`];
  return names
    .flatMap((each) => PLACES.map((place) => root + place + each))
    .find((each) => statSync(each, { throwIfNoEntry: false })?.isFile());
}

const rows = readFileSync(`${root}THREAT-MODEL.md`, "utf8")
  .split("\n")
  .filter((line) => line.startsWith("|"))
  .map((line) => line.split("|").map((cell) => cell.trim()))
  .filter((cells) => cells.length === 5 && !/^-+$/.test(cells[1]!) && cells[2] !== "what happens");

describe("the threat model", () => {
  it("has rows", () => expect(rows.length).toBeGreaterThan(20));

  it("names a test beside every 'cannot'", () => {
    const bare = rows.filter(([, , happens, test]) => /^cannot/.test(happens!) && test === "");
    expect(bare.map(([, tries]) => tries)).toEqual([]);
  });

  for (const [, tries, , tests] of rows) {
    for (const test of tests!.split("; ").filter((each) => each !== "")) {
      it(`${tries}: ${test}`, () => {
        const [name, words] = test.split(/: (.*)/s, 2) as [string, string | undefined];
        const file = fileOf(name);
        expect(file, `${name} is no file`).toBeDefined();
        expect(words, "a test is named, not a file of them").toMatch(/\S/);
        const wanted = file!.endsWith(".rs") ? `fn ${words}(` : words!;
        expect(readFileSync(file!, "utf8").includes(wanted), `'${wanted}' in ${name}`).toBe(true);
      });
    }
  }
});
