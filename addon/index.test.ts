// The addon's declarations are what its Rust code says, and its loader names everything they declare.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";

const here = import.meta.dirname;
const built = existsSync(path.join(here, "bifurcate.node"));

describe("index.d.ts", () => {
  it("is what the Rust code declares", { timeout: 900_000 }, () => {
    const check = spawnSync(process.execPath, [path.join(here, "build.mjs"), "--check"], {
      encoding: "utf8",
    });
    expect(check.stderr).not.toContain("out of date");
    expect(check.status).toBe(0);
  });
});

describe("index.js", () => {
  it.skipIf(!built)("exports every class and function of index.d.ts", async () => {
    const declared = [
      ...readFileSync(path.join(here, "index.d.ts"), "utf8").matchAll(
        /^export declare (?:class|function|const|enum) (\w+)/gm,
      ),
    ].map(([, name]) => name);
    expect(declared).toContain("NativeKernel");
    const loaded: Record<string, unknown> = await import("./index.js");
    for (const name of declared) expect(loaded[name!], name).toBeDefined();
  });

  it("says how to build the addon where it is missing", () => {
    const empty = mkdtempSync(path.join(tmpdir(), "bifurcate-addon-"));
    try {
      copyFileSync(path.join(here, "index.js"), path.join(empty, "index.mjs"));
      const run = spawnSync(process.execPath, [path.join(empty, "index.mjs")], { encoding: "utf8" });
      expect(run.status).toBe(1);
      expect(run.stderr).toContain('run "npm run build"');
      expect(run.stderr).toContain("E_NO_ADDON");
    } finally {
      rmSync(empty, { recursive: true });
    }
  });
});
