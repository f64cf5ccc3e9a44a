// docs/filter.md says what the code says. `UPDATE_DOCS=1` writes its table anew.
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { BifurcateError, ERRORS } from "../../errors.js";
import { compile } from "./compile.js";
import { PROTOCOL_WORDS } from "./words.js";
import { UNSUPPORTED } from "./unsupported.js";

const PATH = new URL("../../../../docs/filter.md", import.meta.url);
const MARKS = /<!-- unsupported -->[^]*<!-- \/unsupported -->/;

function table(): string {
  const byReason = new Map<string, string[]>();
  for (const [word, reason] of Object.entries(UNSUPPORTED)) {
    byReason.set(reason, [...(byReason.get(reason) ?? []), `\`${word}\``]);
  }
  const rows = [...byReason].map(([reason, words]) => `| ${words.join(", ")} | ${reason} |`);
  return [
    "<!-- unsupported -->",
    "",
    "| words | why not |",
    "|---|---|",
    ...rows,
    "",
    "<!-- /unsupported -->",
  ].join("\n");
}

describe("docs/filter.md", () => {
  if (process.env["UPDATE_DOCS"] === "1") {
    const text = readFileSync(PATH, "utf8");
    writeFileSync(
      PATH,
      text.replace(MARKS, () => table()),
    );
  }
  const text = readFileSync(PATH, "utf8");

  it("lists every word that is not supported, with the reason", () => {
    // The formatter aligns the columns.
    const plain = (markdown: string): string => markdown.replace(/[ -]+/g, "");
    expect(plain(MARKS.exec(text)?.[0] ?? "")).toBe(plain(table()));
  });

  it.each(Object.keys(UNSUPPORTED))("is right that %s is not supported", (word) => {
    const source = word === "radio" ? "radio[0] = 1" : `${word} 5`;
    expect(() => compile(source)).toThrow(BifurcateError);
    expect(() => compile(source)).toThrow(/is not supported/);
  });

  it("names every code that an expression can fail with", () => {
    for (const code of Object.keys(ERRORS).filter((name) => name.startsWith("E_FLOW_"))) {
      if (code === "E_FLOW_TAKEN") continue;
      expect(text).toContain(`\`${code}\``);
    }
  });

  it("names every protocol that is supported", () => {
    for (const word of PROTOCOL_WORDS)
      if (word !== "radio") expect(text).toMatch(new RegExp(`\`${word}[ \`]`));
  });

  it("shows the error message as it is", () => {
    const shown = /^\$ bifurcate explain '(.*)'\n([^]*?)```/m.exec(text)!;
    try {
      compile(shown[1]!);
      expect.fail("no error");
    } catch (error) {
      expect((error as BifurcateError).render()).toBe(shown[2]!.trimEnd().replace(/^bifurcate: /, ""));
    }
  });
});
