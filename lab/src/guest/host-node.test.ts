// The host's Node for the guest: optional, whatever is wrong with its place in the cache.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { hostNode, hostNodeRecipe } from "./host-node.js";

let folder: string;
beforeEach(() => (folder = mkdtempSync(path.join(tmpdir(), "bifurcate-host-node-"))));
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

test("a cache that cannot be used is told, and ends nothing", async ({ skip }) => {
  skip((await hostNodeRecipe("no-tools")) === null, "this Node is in parts: it is not put into guests");
  writeFileSync(path.join(folder, "file"), "");
  vi.stubEnv("XDG_CACHE_HOME", path.join(folder, "file"));
  const said: string[] = [];
  expect(await hostNode("no-tools", (text) => said.push(text), false)).toBeNull();
  expect(said.join()).toMatch(/^node: .*; the guest has Debian's/);
});

test("another Node is another entry, and the same one is the same", async ({ skip }) => {
  const recipe = await hostNodeRecipe("no-tools");
  skip(recipe === null, "this Node is in parts: it is not put into guests");
  expect(recipe!.from).toMatchObject({ node: process.version });
  expect((await hostNodeRecipe("other-tools"))!.from).toEqual(recipe!.from);
});
