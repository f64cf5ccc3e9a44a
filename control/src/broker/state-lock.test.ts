// The lock on a broker's state, by the machine's own kernel: who has it is named, and what is no lock is an error.
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BifurcateError } from "../errors.js";
import { locals } from "./machine.js";
import { LOCK, lockState } from "./state-lock.js";
import { refusal } from "./testing/lease-place.js";

describe("the lock on a broker's state", () => {
  let folder: string;
  let state: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bifurcate-lock-"));
    state = join(folder, "state");
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const lock = (socket: string) => lockState(locals(), state, socket);

  it("is one broker's, until it ends", () => {
    const first = lock("/run/first.sock");
    let error: BifurcateError | undefined;
    try {
      lock("/run/second.sock").close();
    } catch (thrown) {
      error = thrown as BifurcateError;
    }
    expect(error?.code).toBe("E_BROKER_RUNNING");
    expect(error?.why).toBe(`process ${process.pid}, a broker at /run/first.sock, has it`);
    expect(error?.next).toContain(`End process ${process.pid} first`);
    expect(error?.next).toContain("--state");
    expect(error?.data).toEqual({ state, pid: process.pid, socket: "/run/first.sock" });
    first.close();
    lock("/run/second.sock").close();
  });

  it("can be looked at by nobody else: who could open it could hold it", () => {
    lock("/run/first.sock").close();
    expect(statSync(state).mode & 0o777).toBe(0o700);
    // The folder may be that of the socket, which others pass through.
    chmodSync(state, 0o755);
    expect(statSync(join(state, LOCK)).mode & 0o777).toBe(0o600);
  });

  it("says as much as is known of who has it", () => {
    const first = lock("/run/first.sock");
    // Of one that was killed: what it wrote stays until the next one, which has the lock a moment before, has written too.
    const { pid: dead } = spawnSync("true");
    const others = [dead, process.pid, 0, -1, 1.5, "self"].map((pid) =>
      JSON.stringify({ pid, startTime: "1", socket: "/run/first.sock" }),
    );
    for (const words of ["", "{", "null", '{"pid":"1"}', '{"pid":1,"socket":2}', ...others]) {
      writeFileSync(join(state, LOCK), words);
      const said = refusal(() => lock("/run/second.sock"));
      expect(said).toContain("E_BROKER_RUNNING: another broker has it");
      expect(said).toContain(`has ${join(state, LOCK)} open`);
    }
    first.close();
  });

  it("leaves no words of a broker that has stopped", () => {
    const first = lock("/run/first.sock");
    first.close();
    expect(readFileSync(join(state, LOCK), "utf8")).toBe("");
    const second = lock("/run/second.sock");
    first.close();
    expect(refusal(() => lock("/run/third.sock"))).toContain("a broker at /run/second.sock");
    // A file that somebody removed is not made again.
    rmSync(join(state, LOCK));
    second.close();
    expect(existsSync(join(state, LOCK))).toBe(false);
  });

  it("cannot be had where the file is no file of the folder", () => {
    mkdirSync(state);
    symlinkSync(join(folder, "elsewhere"), join(state, LOCK));
    expect(refusal(() => lock("/run/first.sock"))).toMatch(/^E_SYSTEM: .*ELOOP/);
    rmSync(state, { recursive: true });
    writeFileSync(state, "");
    expect(refusal(() => lock("/run/first.sock"))).toMatch(/^E_SYSTEM: .*(EEXIST|ENOTDIR)/);
  });
});
