// docs/api.md and docs/handlers.md against the code: their TypeScript compiles, what needs no card runs, and no member
// of the API is left out.

import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import ts from "typescript";
import { afterAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-docs-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const pages = ["api", "handlers", "vhost-user"].map((name) => ({
  name,
  text: readFileSync(path.join(root, "docs", `${name}.md`), "utf8"),
}));
const blocks = pages.flatMap(({ name, text }) =>
  [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match, index) => ({
    name: `${name}.md, block ${index + 1}`,
    file: path.join(root, "docs", `${name}-${index + 1}.ts`),
    source: match[1]!,
  })),
);

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2023,
  lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  moduleDetection: ts.ModuleDetectionKind.Force,
  strict: true,
  noUncheckedIndexedAccess: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
  noEmit: true,
  types: ["node"],
};

/** A program of the docs' blocks, which lie in memory beside the docs. */
function programOf(sources: ReadonlyMap<string, string>): ts.Program {
  const host = ts.createCompilerHost(OPTIONS);
  const { readFile, fileExists, getSourceFile } = host;
  host.fileExists = (name) => sources.has(name) || fileExists(name);
  host.readFile = (name) => sources.get(name) ?? readFile(name);
  host.getSourceFile = (name, ...rest) => {
    const source = sources.get(name);
    return source === undefined
      ? getSourceFile(name, ...rest)
      : ts.createSourceFile(name, source, ...(rest.slice(0, 1) as [ts.ScriptTarget]));
  };
  host.getCurrentDirectory = () => root;
  return ts.createProgram([...sources.keys()], OPTIONS, host);
}

const WRONG = path.join(root, "docs", "wrong.ts");
const program = programOf(
  new Map([
    ...blocks.map(({ file, source }) => [file, source] as const),
    [WRONG, 'import { split } from "bifurcate";\nawait split("eth0", { flow: "udp" });\n'],
  ]),
);

function mistakes(file: string): string[] {
  return ts
    .getPreEmitDiagnostics(program, program.getSourceFile(file))
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, " "));
}

describe("the TypeScript of the docs", () => {
  it("is there, and a mistake in it would be found", () => {
    expect(blocks.length).toBeGreaterThan(6);
    expect(mistakes(WRONG).join()).toContain("flow");
  });

  it.each(blocks)("compiles: $name", ({ file }) => expect(mistakes(file)).toEqual([]));

  const runnable = blocks.filter(({ source }) => source.includes('open("loopback'));

  it.each(runnable)("runs: $name", async ({ source }) => {
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 },
    });
    const file = path.join(folder, `${Math.random()}.mjs`);
    writeFileSync(
      file,
      outputText.replaceAll('"bifurcate"', JSON.stringify(import.meta.resolve("bifurcate"))),
    );
    await promisify(execFile)(process.execPath, [file]);
  });
});

describe("docs/api.md", () => {
  const { text } = pages[0]!;
  const checker = program.getTypeChecker();
  const index = program
    .getSourceFiles()
    .find(({ fileName }) => /bifurcate\/dist\/index\.d\.ts$/.test(fileName))!;
  const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(index)!);
  /** What is meant for the package itself. */
  const internal = (symbol: ts.Symbol): boolean =>
    symbol.getJsDocTags(checker).some(({ name }) => name === "internal") ||
    symbol.declarations?.some(
      (declaration) => ts.getCombinedModifierFlags(declaration) & ts.ModifierFlags.Private,
    ) === true;
  const members = (name: string): string[] => {
    const found = exported.find((symbol) => symbol.name === name)!;
    const symbol = found.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(found) : found;
    return checker
      .getDeclaredTypeOfSymbol(symbol)
      .getProperties()
      .filter((member) => !member.name.startsWith("__") && !internal(member))
      .map((member) => member.name);
  };
  const types = ["SplitOptions", "Port", "PortPath", "Obtained", "Counters", "RunOptions", "HandlerFile"];

  it.each([...types, "CloseOptions", "SenderOptions", "Batch", "Frame"])("names all of %s", (type) => {
    expect(members(type).length).toBeGreaterThan(0);
    expect(members(type).filter((name) => !new RegExp(`\\b${name}\\b`).test(text))).toEqual([]);
  });

  it("names every function of the package", () => {
    const functions = exported.filter((found) => {
      const symbol = found.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(found) : found;
      return symbol.flags & ts.SymbolFlags.Function;
    });
    expect(functions.length).toBeGreaterThan(2);
    expect(functions.map(({ name }) => name).filter((name) => !text.includes(`${name}(`))).toEqual([]);
  });
});
