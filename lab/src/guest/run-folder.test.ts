// Folders of boots: those of processes that are gone are removed, those of others are left.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { makeRunFolder, removeLeftFolders } from "./run-folder.js";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "bifurcate-folders-"));
  vi.stubEnv("TMPDIR", folder);
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

it("removes what a killed process left, and nothing else", () => {
  const mine = makeRunFolder();
  expect(path.dirname(mine)).toBe(folder);
  const begin = path.basename(mine).split(`-${process.pid}-`)[0]!;
  const gone = spawnSync("true").pid;
  const left = path.join(folder, `${begin}-${gone}-abcdef`);
  mkdirSync(left);
  writeFileSync(path.join(left, "project.tar"), "much");
  // Another namespace's process of that number may well live.
  const foreign = path.join(folder, `bifurcate-guest-1-${gone}-abcdef`);
  mkdirSync(foreign);
  mkdirSync(path.join(folder, "bifurcate-guest-notes"));
  const second = makeRunFolder();
  expect(readdirSync(folder).sort()).toEqual(
    [mine, second, foreign, "bifurcate-guest-notes"].map((name) => path.basename(name)).sort(),
  );
  mkdirSync(left);
  removeLeftFolders([folder]);
  expect(readdirSync(folder)).not.toContain(path.basename(left));
  expect(readdirSync(folder)).toContain(path.basename(mine));
});
