// What the guest is given to run: bundles that stand where the programs of the checkout do.

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bundleProject } from "./bundle.js";

const checkout = fileURLToPath(new URL("../../..", import.meta.url));

describe("the project's bundles for the guest", () => {
  let folder: string;
  let files: string[];
  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "bifurcate-bundles-"));
    await bundleProject(checkout, folder);
    files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".js"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("take the places of the programs and of what handlers import", () => {
    for (const name of [
      "bifurcate/dist/index.js",
      "bifurcate/dist/worker.js",
      "bifurcate/dist/compare/subject-main.js",
      "control/dist/guardian/main.js",
      "lab/dist/traffic/datagrams.js",
    ]) {
      expect(files).toContain(name);
      expect(existsSync(path.join(checkout, name)), `${name} is a file of the checkout`).toBe(true);
    }
  });

  test("are plain scripts where they are processes of their own, under the names that start them", () => {
    for (const name of [
      "bifurcate/bin/bifurcate.mjs",
      "bifurcate/bin/bifurcated.mjs",
      "control/dist/guardian/main.js",
    ]) {
      expect(existsSync(path.join(checkout, name)), `${name} is a file of the checkout`).toBe(true);
      const text = readFileSync(path.join(folder, name), "utf8");
      expect(text).toMatch(/^#!\/usr\/bin\/env node\n"use strict";/);
    }
  });

  test("need no file of ours beside themselves: a class has one instance whoever imports it", () => {
    const strangers = files.flatMap((name) =>
      [...readFileSync(path.join(folder, name), "utf8").matchAll(/(?:from|import\(?)\s*"([^"]+)"/g)]
        .map(([, specifier]) => specifier!)
        .filter((specifier) =>
          specifier.startsWith(".")
            ? !existsSync(path.join(folder, path.dirname(name), specifier))
            : specifier.startsWith("@bifurcate/") && specifier !== "@bifurcate/addon",
        )
        .map((specifier) => `${name}: ${specifier}`),
    );
    expect(strangers).toEqual([]);
  });

  test("find a file beside a module from where that module is in the guest", () => {
    const run = files.filter((name) =>
      readFileSync(path.join(folder, name), "utf8").includes('"file:///bifurcate/bifurcate/dist/run.js"'),
    );
    // The module of the programs' modules, and the command's own.
    expect(run).toHaveLength(2);
  });
});
