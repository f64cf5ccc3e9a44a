// Real processes on a real veth: owner and guardian killed at any moment, and the card's settings after it.
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { buildSync } from "esbuild";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { isAlive, type ProcessIdentity } from "../facts/processes.js";
import type { Netns } from "../kernel.js";
import { nativeKernel } from "../native.js";
import { prepareSplit } from "../prepare.js";
import type { Step } from "../steering/plan.js";
import { readJournals } from "../transaction/journal.js";
import { listSplits } from "../transaction/registry.js";
import { release, releaseStale } from "../transaction/release.js";
import { confirmSplit, SplitTransaction } from "../transaction/transaction.js";

const root = process.getuid?.() === 0;
const ownerProgram = fileURLToPath(new URL("../../dist/testing/owner.js", import.meta.url));
const name = `bfctl${process.pid}`;
let state: string;
let netns: Netns;
let before: unknown;
const owners: ChildProcess[] = [];

function ip(...words: string[]): string {
  return execFileSync("ip", words, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

/** Settings of a veth that can change: queues, VLAN features, MTU. */
function settings(at: Netns = netns, ifname = "v0"): unknown {
  const link = at.links().find((each) => each.name === ifname);
  return { channels: at.channels(ifname), features: at.features(ifname), mtu: link?.mtu, xdp: link?.xdp };
}

/** veth has queues and a VLAN switch to set: enough for steps before and after the sockets. */
const steps: Omit<Step, "device">[] = [
  {
    when: "before",
    apply: { kind: "channels", channels: { rx: 3, tx: 2, combined: 0, other: 0 } },
    undo: { kind: "channels", channels: { rx: 4, tx: 4, combined: 0, other: 0 } },
    words: "set 3 queues",
  },
  {
    when: "after",
    apply: { kind: "feature", feature: "rx-vlan-stag-hw-parse", on: false },
    undo: { kind: "feature", feature: "rx-vlan-stag-hw-parse", on: true },
    words: "switch a feature off",
  },
];

interface Word {
  readonly word: string;
  readonly id?: string;
  readonly guardian?: ProcessIdentity | null;
  readonly why?: string;
}

interface Owner {
  readonly child: ChildProcess;
  /** The next line that says this word. */
  hear(word: string): Promise<Word>;
}

function own(options: Record<string, unknown> = {}, env: NodeJS.ProcessEnv = {}): Owner {
  const child = spawn(
    process.execPath,
    [ownerProgram, name, "v0", JSON.stringify({ flows: ["vlan and udp"], steps, ...options })],
    { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, BIFURCATE_STATE_DIR: state, ...env } },
  );
  owners.push(child);
  const said: Word[] = [];
  const waiting = new Set<() => void>();
  const lines = createInterface({ input: child.stdout! });
  lines.on("line", (line) => {
    said.push(JSON.parse(line) as Word);
    for (const wake of waiting) wake();
  });
  lines.once("close", () => {
    said.push({ word: "failed", why: "it ended" });
    for (const wake of waiting) wake();
  });
  const hear = async (word: string): Promise<Word> => {
    for (;;) {
      const found = said.find((each) => each.word === word);
      if (found !== undefined) return found;
      const failed = said.find((each) => each.word === "failed");
      if (failed !== undefined) throw new Error(`the owner failed: ${failed.why}`);
      await new Promise<void>((resolve) => waiting.add(resolve));
    }
  };
  return { child, hear };
}

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; !holds(); i++) {
    if (i > 3000) throw new Error("it never happened");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill("SIGKILL");
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
}

const noJournals = (): boolean => readJournals(state).journals.length === 0;

describe.skipIf(!root)("a split on veth (needs root)", () => {
  beforeAll(() => {
    buildSync({
      entryPoints: [fileURLToPath(new URL("../testing/owner.ts", import.meta.url))],
      outfile: ownerProgram,
      format: "esm",
    });
    ip("netns", "add", name);
    ip(
      "-n",
      name,
      "link",
      "add",
      "v0",
      "numrxqueues",
      "4",
      "numtxqueues",
      "4",
      "type",
      "veth",
      "peer",
      "name",
      "v1",
      "numrxqueues",
      "4",
      "numtxqueues",
      "4",
    );
    ip("-n", name, "link", "set", "v0", "up");
    ip("-n", name, "link", "set", "v1", "up");
    // The peer must not have more transmit queues than v0 has receive queues once XDP is on.
    execFileSync("ip", ["netns", "exec", name, "ethtool", "-L", "v1", "tx", "2"]);
    netns = nativeKernel().openNetns(name);
    before = settings();
  });

  beforeEach(() => {
    state = mkdtempSync(join(tmpdir(), "bifurcate-state-"));
  });

  afterEach(async () => {
    for (const child of owners.splice(0)) await kill(child);
    await until(noJournals).catch(() => undefined);
    rmSync(state, { recursive: true, force: true });
  });

  afterAll(() => {
    netns.close();
    ip("netns", "del", name);
  });

  it("changes the settings, and gives them back on SIGTERM and SIGINT", async () => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      const owner = own();
      await owner.hear("live");
      expect(settings()).not.toEqual(before);
      owner.child.kill(signal);
      await owner.hear("undone");
      expect(settings()).toEqual(before);
      expect(readdirSync(state)).toEqual([]);
    }
  });

  it("gives them back when the owner is killed, and the guardian ends then", async () => {
    const owner = own();
    const { guardian } = await owner.hear("live");
    if (guardian === null || guardian === undefined) throw new Error("no guardian");
    await kill(owner.child);
    await until(noJournals);
    expect(settings()).toEqual(before);
    await until(() => !isAlive(guardian));
    expect(readdirSync(state)).toEqual([]);
  });

  it("gives them back when the owner is killed in the middle", async () => {
    const owner = own({ linger: 60_000 });
    await owner.hear("opening");
    expect(settings()).not.toEqual(before);
    await kill(owner.child);
    await until(noJournals);
    expect(settings()).toEqual(before);
  });

  it("gives them back when the owner is killed at any moment of its start", async () => {
    for (const wait of [60, 90, 120, 150, 180, 210, 240, 270, 300, 330]) {
      const owner = own();
      await new Promise((resolve) => setTimeout(resolve, wait));
      await kill(owner.child);
      await until(noJournals);
      expect(settings()).toEqual(before);
    }
  });

  it("leaves no record when the owner is killed before its guardian is up", async () => {
    const never = join(state, "never.mjs");
    writeFileSync(never, 'process.stdin.resume().once("end", () => process.exit());\n');
    const owner = own({}, { BIFURCATE_GUARDIAN: never });
    await until(() => !noJournals());
    await kill(owner.child);
    await until(noJournals);
    expect(settings()).toEqual(before);
  });

  it("starts another guardian when one is killed, and that one does its work", async () => {
    const owner = own();
    const { guardian } = await owner.hear("live");
    process.kill(guardian?.pid ?? 0, "SIGKILL");
    const second = (): ProcessIdentity | null => readJournals(state).journals[0]?.guardian ?? null;
    await until(() => second()?.pid !== guardian?.pid);
    await kill(owner.child);
    await until(noJournals);
    expect(settings()).toEqual(before);
  });

  it("takes away the filter at tc ingress that outlives a killed owner, and the qdisc made for it", async () => {
    const filter = { kind: "ingress-filter", name: "bifurcate-test", qdisc: true } as const;
    const step: Omit<Step, "device"> = {
      when: "before",
      apply: { ...filter, present: true },
      undo: { ...filter, present: false },
      words: "filter",
    };
    const { index } = netns.links().find((each) => each.name === "v0")!;
    const idle = netns.tcIngress(index);
    for (const signal of ["SIGKILL", "SIGTERM"] as const) {
      const owner = own({ steps: [step], ingressFilter: filter.name });
      await owner.hear("live");
      expect(netns.tcIngress(index)).toMatchObject({ clsact: true, filters: [filter.name] });
      owner.child.kill(signal);
      await until(noJournals);
      expect(netns.tcIngress(index)).toEqual(idle);
    }
  });

  it("is undone by releaseStale, or the next split, when both were killed", async () => {
    for (const way of ["release", "next"] as const) {
      const owner = own();
      const { guardian, id } = await owner.hear("live");
      owner.child.kill("SIGSTOP"); // so that it starts no other guardian
      process.kill(guardian?.pid ?? 0, "SIGKILL");
      await kill(owner.child);
      await until(() => guardian == null || !isAlive(guardian));
      expect(listSplits(state).splits).toMatchObject([{ id, state: "stale" }]);
      expect(settings()).not.toEqual(before);
      if (way === "release") {
        const { released, errors } = await releaseStale(nativeKernel(), { directory: state });
        expect(errors).toEqual([]);
        expect(released).toMatchObject([{ id, report: { left: [], deviceGone: false } }]);
      } else {
        const next = own({ steps: [] });
        await next.hear("live");
        expect(listSplits(state).splits.map((each) => each.id)).not.toContain(id);
        next.child.kill("SIGTERM");
        await next.hear("undone");
      }
      expect(settings()).toEqual(before);
    }
  });

  it("is released from another process, by name", async () => {
    const owner = own();
    const { id } = await owner.hear("live");
    expect(await release(nativeKernel(), id ?? "", { directory: state })).toMatchObject({ id, report: null });
    expect(settings()).toEqual(before);
    await expect(release(nativeKernel(), id ?? "", { directory: state })).rejects.toMatchObject({
      code: "E_NO_SUCH_SPLIT",
    });
  });

  it("undoes itself unless confirmed", async () => {
    // Long enough to be live by then, also where starting the guardian takes seconds.
    const owner = own({ confirmSeconds: 5 });
    await owner.hear("live");
    expect((await owner.hear("undone")).why).toBe("expired");
    expect(settings()).toEqual(before);

    const other = own({ confirmSeconds: 10 });
    const { id } = await other.hear("live");
    confirmSplit(state, id ?? "");
    await new Promise((resolve) => setTimeout(resolve, 11_000));
    expect(listSplits(state).splits).toMatchObject([{ id, state: "live" }]);
    expect(settings()).not.toEqual(before);
  });

  it("is ended and undone when it is not confirmed and its owner hangs", async () => {
    const owner = own({ confirmSeconds: 5 });
    await owner.hear("live");
    owner.child.kill("SIGSTOP");
    await until(noJournals);
    expect(settings()).toEqual(before);
  });

  it("leaves a renamed device as it was, and has nothing to do on a deleted one", async () => {
    const owner = own();
    await owner.hear("live");
    ip("-n", name, "link", "set", "v0", "name", "other0");
    await kill(owner.child);
    await until(noJournals);
    expect(settings(netns, "other0")).toEqual(before);
    ip("-n", name, "link", "set", "other0", "name", "v0");
    expect(settings()).toEqual(before);

    ip("-n", name, "link", "add", "w0", "type", "veth", "peer", "name", "w1");
    ip("-n", name, "link", "set", "w0", "up");
    const prepared = prepareSplit(nativeKernel(), {
      ifname: "w0",
      netns: name,
      flows: ["vlan and udp"],
      stateDirectory: state,
    });
    const transaction = new SplitTransaction(nativeKernel(), prepared, {
      launch: () => Promise.resolve({ identity: { pid: 1, startTime: "0" }, confirmed() {}, dismiss() {} }),
    });
    await transaction.apply();
    ip("-n", name, "link", "del", "w0");
    expect((await transaction.undo()).left).toEqual([]);
    expect(readdirSync(state)).toEqual([]);
  });

  it("is undone on a device that was moved to another namespace", async () => {
    const elsewhere = `${name}b`;
    ip("netns", "add", elsewhere);
    try {
      const owner = own();
      await owner.hear("live");
      ip("-n", name, "link", "set", "v0", "netns", elsewhere);
      await kill(owner.child);
      await until(noJournals);
      const there = nativeKernel().openNetns(elsewhere);
      expect(settings(there)).toMatchObject({ channels: (before as { channels: unknown }).channels });
      expect((settings(there) as { features: unknown }).features).toEqual(
        (before as { features: unknown }).features,
      );
      there.close();
      ip("-n", elsewhere, "link", "set", "v0", "netns", name);
      ip("-n", name, "link", "set", "v0", "up");
    } finally {
      ip("netns", "del", elsewhere);
    }
    expect(settings()).toEqual(before);
  });

  it("is undone in a namespace whose name is gone", async () => {
    const lost = `${name}c`;
    ip("netns", "add", lost);
    ip(
      "-n",
      lost,
      "link",
      "add",
      "v0",
      "numrxqueues",
      "4",
      "numtxqueues",
      "4",
      "type",
      "veth",
      "peer",
      "name",
      "v1",
    );
    ip("-n", lost, "link", "set", "v0", "up");
    const held = nativeKernel().openNetns(lost);
    const was = settings(held);
    const child = spawn(
      process.execPath,
      [ownerProgram, lost, "v0", JSON.stringify({ flows: ["vlan and udp"], steps: steps.slice(1) })],
      { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, BIFURCATE_STATE_DIR: state } },
    );
    owners.push(child);
    for await (const line of createInterface({ input: child.stdout })) if (line.includes('"live"')) break;
    ip("netns", "del", lost);
    expect(settings(held)).not.toEqual(was);
    await kill(child);
    await until(noJournals);
    expect(settings(held)).toEqual(was);
    held.close();
  });

  it("does not begin when the disk under the journal is full", async () => {
    const small = join(state, "small");
    mkdirSync(small);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4k", "tmpfs", small]);
    try {
      writeFileSync(join(small, "filler"), Buffer.alloc(4096));
      const prepared = prepareSplit(nativeKernel(), {
        ifname: "v0",
        netns: name,
        flows: ["vlan and udp"],
        stateDirectory: small,
      });
      const transaction = new SplitTransaction(nativeKernel(), prepared);
      await expect(transaction.apply()).rejects.toMatchObject({ code: "E_JOURNAL" });
      prepared.netns.close();
      expect(settings()).toEqual(before);
      expect(readdirSync(small)).toEqual(["filler"]);
    } finally {
      execFileSync("umount", [small]);
    }
  });
});
