// A guardian watches real processes and undoes on a model card: owner dead, owner done, confirmed, not confirmed.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readFacts } from "../facts/facts.js";
import { identify, isAlive, ownIdentity } from "../facts/processes.js";
import { makePlan } from "../steering/make-plan.js";
import { fakeFlow } from "../testing/fake-flow.js";
import { fakeCard, FakeKernel } from "../testing/fake-kernel.js";
import { readJournal, removeJournal, writeJournal } from "../transaction/journal.js";
import { confirmationPath, SplitTransaction } from "../transaction/transaction.js";
import { guard, type Surroundings } from "./guard.js";

let directory: string;
let owner: ChildProcess;
let kernel: FakeKernel;
let said: string[];

beforeEach(() => {
  directory = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "bifurcate-guard-"));
  owner = spawn("sleep", ["1000"]);
  kernel = new FakeKernel([fakeCard()]);
  said = [];
});

afterEach(() => {
  owner.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
});

/** A live split on the card whose owner is `owner`; gives what its guardian sees. */
async function liveSplit(confirmInMs: number | null = null): Promise<Surroundings & { close: () => void }> {
  const facts = readFacts(kernel, kernel.netns, "eth0");
  const plan = makePlan(facts, { ifname: "eth0", flows: ["port 53"] }, fakeFlow);
  const prepared = {
    plan,
    facts,
    netns: kernel.netns,
    netnsPath: "/proc/self/ns/net",
    stateDirectory: directory,
  };
  const transaction = new SplitTransaction(kernel, prepared, {
    launch: () =>
      Promise.resolve({ identity: ownIdentity(), confirmed: () => undefined, dismiss: () => undefined }),
  });
  await transaction.apply();
  const { id } = transaction;
  const journal = readJournal(directory, id);
  const identity = identify(owner.pid ?? 0);
  if (journal === null || identity === null) throw new Error("no split");
  writeJournal(directory, {
    ...journal,
    owner: identity,
    confirmBy: confirmInMs === null ? null : Date.now() + confirmInMs,
  });
  let close = (): void => undefined;
  const pipeClosed = new Promise<void>((resolve) => (close = resolve));
  return {
    kernel,
    directory,
    id,
    netns: kernel.netns,
    say: (word) => void said.push(word),
    pipeClosed,
    confirmed: () => false,
    close,
  };
}

const untouched = (): boolean =>
  kernel.card("eth0").rules?.size === 0 && JSON.stringify(kernel.card("eth0")) === JSON.stringify(fakeCard());

describe("a guardian", () => {
  it("undoes when the owner is killed, with the pipe closed or held open by somebody else", async () => {
    for (const closes of [true, false]) {
      if (owner.exitCode !== null || owner.signalCode !== null) owner = spawn("sleep", ["1000"]);
      const world = await liveSplit();
      expect(untouched()).toBe(false);
      const done = guard(world);
      owner.kill("SIGKILL");
      await once(owner, "exit");
      if (closes) world.close();
      expect(await done).toBe(0);
      expect(untouched()).toBe(true);
      expect(readdirSync(directory)).toEqual([]);
      expect(said.at(-1)).toBe("ready");
    }
  });

  it("ends without touching anything when the owner has undone the split and lives on", async () => {
    const world = await liveSplit();
    const done = guard(world);
    removeJournal(directory, world.id);
    const changes: string[] = [];
    kernel.onChange = (_, call) => void changes.push(call);
    world.close();
    expect(await done).toBe(0);
    expect(changes).toEqual([]);
    expect(owner.exitCode).toBeNull();
  });

  it("does not undo only because the pipe closed: the owner may live on without it", async () => {
    const world = await liveSplit();
    const done = guard(world);
    world.close();
    const early = await Promise.race([
      done,
      new Promise((resolve) => setTimeout(() => resolve("waits"), 700)),
    ]);
    expect(early).toBe("waits");
    expect(untouched()).toBe(false);
    owner.kill("SIGKILL");
    expect(await done).toBe(0);
    expect(untouched()).toBe(true);
  });

  it("tells an unconfirmed owner, then ends it, then undoes", async () => {
    const world = await liveSplit(50);
    const identity = identify(owner.pid ?? 0);
    if (identity === null) throw new Error("no owner");
    expect(await guard(world)).toBe(0);
    expect(said).toEqual(["ready", "expired"]);
    expect(isAlive(identity)).toBe(false);
    expect(untouched()).toBe(true);
  });

  it("lets a split live that was confirmed from anywhere", async () => {
    const world = await liveSplit(50);
    writeFileSync(confirmationPath(directory, world.id), "");
    const done = guard(world);
    const early = await Promise.race([
      done,
      new Promise((resolve) => setTimeout(() => resolve("waits"), 700)),
    ]);
    expect(early).toBe("waits");
    expect(said).toEqual(["ready"]);
    expect(untouched()).toBe(false);
    owner.kill("SIGKILL");
    await done;
    expect(readdirSync(directory)).toEqual([]);
  });
});
