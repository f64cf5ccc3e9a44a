// A split undone: after a crash at any step, of anyone, the settings equal those before.
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { BifurcateError } from "../errors.js";
import { readFacts } from "../facts/facts.js";
import { identify, ownIdentity } from "../facts/processes.js";
import type { GuardianOptions, LaunchGuardian } from "../guardian/launch.js";
import type { PreparedSplit } from "../prepare.js";
import { makePlan } from "../steering/make-plan.js";
import type { SplitRequest } from "../steering/plan.js";
import { fakeFlow } from "../testing/fake-flow.js";
import {
  driverTable,
  fakeCard,
  fakeLink,
  FakeKernel,
  FakeRefusal,
  fakeRule,
  type FakeCard,
} from "../testing/fake-kernel.js";
import { journalPath, readJournals, writeJournal } from "./journal.js";
import { listSplits } from "./registry.js";
import { release, releaseStale } from "./release.js";
import { confirmationPath, SplitTransaction } from "./transaction.js";
import { undoJournal } from "./undo.js";

const scratch = existsSync("/dev/shm") ? "/dev/shm" : tmpdir(); // fsync costs nothing there
const directories: string[] = [];

function directory(): string {
  const made = mkdtempSync(join(scratch, "bifurcate-test-"));
  directories.push(made);
  return made;
}

afterEach(() => {
  for (const each of directories.splice(0)) rmSync(each, { recursive: true, force: true });
});

const launch: LaunchGuardian = () =>
  Promise.resolve({ identity: ownIdentity(), confirmed: () => undefined, dismiss: () => undefined });

function prepare(kernel: FakeKernel, request: Partial<SplitRequest>, stateDirectory: string): PreparedSplit {
  const facts = readFacts(kernel, kernel.netns, "eth0");
  const plan = makePlan(facts, { ifname: "eth0", flows: ["port 53"], ...request }, fakeFlow);
  return { plan, facts, netns: kernel.netns, netnsPath: "/proc/self/ns/net", stateDirectory };
}

/** The settings that a user can see, where "the driver's own table" is one value. */
function settings(card: FakeCard): unknown {
  const n = card.now.combined + card.now.rx;
  const own = [
    driverTable({ rssStyle: "blocks" }, card.rss?.length ?? 0, n),
    driverTable({ rssStyle: "interleaved" }, card.rss?.length ?? 0, n),
  ];
  const isOwn = own.some((table) => JSON.stringify(table) === JSON.stringify(card.rss));
  return {
    channels: card.now,
    rss: isOwn ? "the driver's own" : card.rss,
    features: card.features,
    leases: [...(card.leases ?? [])],
    rules: [...(card.rules ?? [])].map(([at, bytes]) => [at, Buffer.from(bytes).toString("hex")]).sort(),
  };
}

/** Numbers of queues that `ethtool -L` would take. */
function takesChannels(card: FakeCard): number[] {
  return Array.from({ length: card.max.combined }, (_, i) => i + 1).filter((combined) => {
    const kernel = new FakeKernel([structuredClone(card)]);
    try {
      kernel.netns.setChannels("eth0", { ...card.now, combined });
      return true;
    } catch {
      return false;
    }
  });
}

const feature = fc.record({ active: fc.boolean(), fixed: fc.boolean() }).map(({ active, fixed }) => ({
  active,
  requested: active,
  available: !fixed || active,
  fixed,
}));

const cards: fc.Arbitrary<FakeCard> = fc
  .record({
    queues: fc.integer({ min: 1, max: 6 }),
    more: fc.integer({ min: 0, max: 3 }),
    size: fc.constantFrom(8, 32),
    style: fc.constantFrom("interleaved" as const, "blocks" as const),
    user: fc.option(fc.array(fc.nat(5), { minLength: 32, maxLength: 32 })),
    rules: fc.uniqueArray(fc.nat(7), { maxLength: 5 }),
    vlan: feature,
    lro: feature,
    ntuple: feature,
    driver: fc.constantFrom("ice", "igb", "mlx5_core", "e1000e"),
  })
  .map(({ queues, more, size, style, user, rules, vlan, lro, ntuple, driver }) => ({
    ...fakeCard(
      {
        rssStyle: style,
        rss:
          user === null
            ? driverTable({ rssStyle: style }, size, queues)
            : user.slice(0, size).map((q) => q % queues),
        rssUser: user !== null,
        capacity: 8,
        rules: new Map(ntuple.active ? rules.map((at) => [at, fakeRule(2, 9000 + at, 0, at)]) : []),
        features: { "rx-vlan-hw-parse": vlan, "rx-lro": lro, "rx-ntuple-filter": ntuple },
        driver: { driver, version: "", firmware: "", bus: "0000:01:00.0" },
      },
      queues,
      queues + more,
    ),
  }));

const requests: fc.Arbitrary<Partial<SplitRequest>> = fc.record(
  {
    flows: fc.uniqueArray(fc.constantFrom("port 53", "long port 54", "vlan port 55", "odd", "all"), {
      minLength: 1,
      maxLength: 3,
    }),
    queues: fc.integer({ min: 1, max: 3 }),
    backend: fc.constantFrom("auto" as const, "af_xdp" as const, "af_packet" as const),
    mode: fc.constantFrom("auto" as const, "driver" as const, "generic" as const),
    steering: fc.constantFrom("auto" as const, "auto" as const, "auto" as const, "lease" as const),
  },
  { requiredKeys: ["flows"] },
);

/** Nothing, or the plan, for a request that cannot be had. */
function prepared(kernel: FakeKernel, request: Partial<SplitRequest>, at: string): PreparedSplit | null {
  try {
    return prepare(kernel, request, at);
  } catch (thrown) {
    if (thrown instanceof BifurcateError) return null;
    throw thrown;
  }
}

describe("undo", () => {
  it("gives back the settings, and every ethtool -L that worked before works after", async () => {
    await fc.assert(
      fc.asyncProperty(cards, requests, async (card, request) => {
        const kernel = new FakeKernel([structuredClone(card)]);
        const at = directory();
        const split = prepared(kernel, request, at);
        if (split === null) return;
        const transaction = new SplitTransaction(kernel, split, { launch });
        await transaction.apply();
        expect(readJournals(at).journals).toHaveLength(1);
        const report = await transaction.undo();
        expect(report.left).toEqual([]);
        const after = kernel.card("eth0");
        expect(settings(after)).toEqual(settings(card));
        expect(takesChannels(after)).toEqual(expect.arrayContaining(takesChannels(card)));
        expect(readdirSync(at)).toEqual([]);
      }),
      { numRuns: 150 },
    );
  });

  it("gives them back after a crash before or after any change, by whoever finds the journal", async () => {
    let crashes = 0;
    await fc.assert(
      fc.asyncProperty(cards, requests, fc.nat(6), async (card, request, moment) => {
        const kernel = new FakeKernel([structuredClone(card)]);
        const at = directory();
        const later = join(directory(), "copy");
        const split = prepared(kernel, request, at);
        if (split === null) return;
        // The moment of the crash: what is on disk and in the card then is all that remains.
        let frozen: FakeCard | null = null;
        let count = 0;
        kernel.onChange = () => {
          if (count++ !== moment || frozen !== null) return;
          frozen = structuredClone(kernel.card("eth0"));
          cpSync(at, later, { recursive: true });
        };
        const transaction = new SplitTransaction(kernel, split, { launch });
        await transaction.apply();
        await transaction.undo();
        if (frozen === null) return;
        crashes++;
        const [journal] = readJournals(later).journals;
        expect(journal).toBeDefined();
        if (journal === undefined) return;
        const survivor = new FakeKernel([frozen]);
        const report = await undoJournal(survivor, survivor.netns, later, journal);
        expect(report.left).toEqual([]);
        expect(settings(survivor.card("eth0"))).toEqual(settings(card));
        expect(readdirSync(later)).toEqual([]);
      }),
      { numRuns: 600 },
    );
    // About 125 of the 600, give or take 11.
    expect(crashes).toBeGreaterThan(50);
  });

  it("happens at once when the kernel refuses any of the changes", async () => {
    let refusals = 0;
    await fc.assert(
      fc.asyncProperty(cards, requests, fc.nat(2), async (card, request, moment) => {
        const kernel = new FakeKernel([structuredClone(card)]);
        const at = directory();
        const split = prepared(kernel, request, at);
        if (split === null) return;
        let count = 0;
        let refused = false;
        kernel.onChange = (when, call) => {
          if (when !== "before" || refused || count++ !== moment) return;
          refused = true;
          throw new FakeRefusal(call, "EIO");
        };
        const closed: string[] = [];
        const transaction = new SplitTransaction(kernel, split, { launch });
        const failure = await transaction.apply({ close: () => void closed.push("closed") }).then(
          () => null,
          (thrown: unknown) => thrown,
        );
        if (!refused) return;
        refusals++;
        expect(failure).toMatchObject({ code: "E_SETTING_REFUSED" });
        expect(closed).toEqual(["closed"]);
        expect(settings(kernel.card("eth0"))).toEqual(settings(card));
        expect(readdirSync(at)).toEqual([]);
      }),
      { numRuns: 400 },
    );
    expect(refusals).toBeGreaterThan(20);
  });

  it("leaves somebody else's later change alone, and says so", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    await transaction.apply();
    const table = Array.from({ length: 32 }, () => 1);
    kernel.netns.setRss("eth0", table);
    kernel.netns.insertNtupleRule("eth0", { location: 15, bytes: fakeRule(2, 7777, 0, 15) });
    const report = await transaction.undo();
    expect(report.left).toHaveLength(2);
    expect(kernel.card("eth0").rss).toEqual(table);
    expect(kernel.card("eth0").rules?.size).toBe(1);
  });

  it("does not switch ntuple rules off under somebody else's rule", async () => {
    const off = { active: false, requested: false, available: true, fixed: false };
    const kernel = new FakeKernel([fakeCard({ features: { "rx-ntuple-filter": off } })]);
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, directory()), { launch });
    await transaction.apply();
    kernel.netns.insertNtupleRule("eth0", { location: 3, bytes: fakeRule(2, 7777, 0, 3) });
    const report = await transaction.undo();
    expect(report.left.join()).toContain("would be lost");
    expect([...(kernel.card("eth0").rules?.keys() ?? [])]).toEqual([3]);
  });

  it("finds a renamed device by its number, and has nothing to do on a deleted one", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const first = new SplitTransaction(kernel, prepare(kernel, {}, directory()), { launch });
    await first.apply();
    kernel.card("eth0").link = fakeLink({ name: "wan0" });
    await first.undo();
    expect(settings(kernel.card("wan0"))).toEqual(settings(fakeCard()));

    const second = new FakeKernel([fakeCard()]);
    const at = directory();
    const gone = new SplitTransaction(second, prepare(second, {}, at), { launch });
    await gone.apply();
    second.cards.splice(0);
    expect(await gone.undo()).toMatchObject({ deviceGone: true });
    expect(readdirSync(at)).toEqual([]);
  });

  it("may be asked for twice, and again after it was incomplete", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    await transaction.apply();
    kernel.onChange = (_, call) => {
      if (call === "setRss") throw new FakeRefusal(call, "EIO");
    };
    await expect(transaction.undo()).rejects.toMatchObject({ code: "E_UNDO_INCOMPLETE" });
    expect(readdirSync(at)).toHaveLength(1);
    kernel.onChange = () => undefined;
    await transaction.undo();
    await transaction.undo();
    expect(settings(kernel.card("eth0"))).toEqual(settings(fakeCard()));
    expect(readdirSync(at)).toEqual([]);
  });
});

describe("a card that does not do as it is told", () => {
  it("has no room for the rule: E_RULES_FULL, and the rest is undone", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    kernel.onChange = (when, call) => {
      if (when === "before" && call === "insertRule") throw new FakeRefusal(call, "ENOSPC");
    };
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    await expect(transaction.apply()).rejects.toMatchObject({ code: "E_RULES_FULL" });
    expect(settings(kernel.card("eth0"))).toEqual(settings(fakeCard()));
    expect(readdirSync(at)).toEqual([]);
  });

  it("takes the rule and has another: E_NOT_VERIFIED, and the rest is undone", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    kernel.onChange = (when, call) => {
      if (when === "after" && call === "insertRule") kernel.card("eth0").rules!.clear();
    };
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    await expect(transaction.apply()).rejects.toMatchObject({ code: "E_NOT_VERIFIED" });
    expect(settings(kernel.card("eth0"))).toEqual(settings(fakeCard()));
    expect(readdirSync(at)).toEqual([]);
  });
});

describe("the time to confirm it", () => {
  it("that is over before the split is live is an error, and everything is undone", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    let expire = (): void => undefined;
    const transaction = new SplitTransaction(kernel, prepare(kernel, { confirmSeconds: 1 }, at), {
      launch: (options) => {
        expire = options.expired;
        return launch(options);
      },
    });
    const calls: string[] = [];
    const applied = transaction.apply({
      open: () => {
        calls.push("open");
        expire();
      },
      close: () => void calls.push("close"),
      expired: () => void calls.push("expired"),
    });
    await expect(applied).rejects.toMatchObject({ code: "E_NOT_CONFIRMED" });
    expect(calls).toEqual(["open", "close"]);
    expect(settings(kernel.card("eth0"))).toEqual(settings(fakeCard()));
    expect(readdirSync(at)).toEqual([]);
  });
});

describe("the order", () => {
  it("steers to the queue only once it has its socket, and away before the socket goes", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const calls: string[] = [];
    kernel.onChange = (when, call) => void (when === "after" && calls.push(call));
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, directory()), { launch });
    await transaction.apply({ open: () => void calls.push("open"), close: () => void calls.push("close") });
    await transaction.undo();
    expect(calls).toEqual(["setRss", "open", "insertRule", "deleteRule", "close", "setRss"]);
  });

  it("writes each change down before it is made", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    const seen: string[] = [];
    kernel.onChange = (when, call) => {
      const steps = readJournals(at).journals[0]?.steps.join(" ") ?? "none";
      if (when === "before") seen.push(`${call}: ${steps}`);
    };
    await transaction.apply();
    expect(seen).toEqual(["setRss: applying pending", "insertRule: applied applying"]);
  });
});

describe("the journal", () => {
  it("that cannot be written stops the split before anything is changed", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const calls: string[] = [];
    kernel.onChange = (_, call) => void calls.push(call);
    const file = join(directory(), "a-file");
    writeFileSync(file, "");
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, join(file, "state")), { launch });
    await expect(transaction.apply()).rejects.toMatchObject({ code: "E_JOURNAL" });
    expect(calls).toEqual([]);
  });

  it("that can no longer be written in the middle undoes what was done", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    const full = (): void => {
      rmSync(at, { recursive: true });
      writeFileSync(at, ""); // a file where the directory was: every write fails
    };
    await expect(transaction.apply({ open: full })).rejects.toMatchObject({ code: "E_JOURNAL" });
    expect(settings(kernel.card("eth0"))).toEqual(settings(fakeCard()));
  });

  it("that a process died writing leaves no file behind", async () => {
    const at = directory();
    writeFileSync(`${journalPath(at, "eth0-1")}.999999999.new`, "{");
    await releaseStale(new FakeKernel([fakeCard()]), { directory: at });
    expect(readdirSync(at)).toEqual([]);
  });

  it("that cannot be read is set aside and reported, and stops no other", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    writeFileSync(journalPath(at, "torn"), '{"version":1,"id":"to');
    writeFileSync(journalPath(at, "odd"), '{"version":1,"id":"odd","owner":{}}');
    expect(listSplits(at).errors.map((error) => error.code)).toEqual([
      "E_JOURNAL_CORRUPT",
      "E_JOURNAL_CORRUPT",
    ]);
    const { errors } = await releaseStale(kernel, { directory: at });
    expect(errors).toHaveLength(2);
    expect(readdirSync(at).sort()).toEqual(["odd.json.corrupt", "torn.json.corrupt"]);
    expect((await releaseStale(kernel, { directory: at })).errors).toEqual([]);
  });

  it("of another boot is void", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    await new SplitTransaction(kernel, prepare(kernel, {}, at), { launch }).apply();
    const [journal] = readJournals(at).journals;
    if (journal === undefined) throw new Error("no journal");
    writeJournal(at, { ...journal, bootId: "another" });
    kernel.onChange = (_, call) => {
      throw new Error(`${call} touched a card of another boot`);
    };
    const { released } = await releaseStale(kernel, { directory: at });
    expect(released[0]?.report?.left.join()).toContain("started anew");
    expect(readdirSync(at)).toEqual([]);
  });
});

describe("who is in charge", () => {
  it("a split is listed live, then stale when owner and guardian are dead", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    await transaction.apply();
    expect(listSplits(at).splits).toMatchObject([{ id: transaction.id, state: "live", flows: ["port 53"] }]);
    const [journal] = readJournals(at).journals;
    if (journal === undefined) throw new Error("no journal");
    // The same number, another start: another process.
    const dead = { pid: process.pid, startTime: "1" };
    writeJournal(at, { ...journal, owner: dead });
    expect(listSplits(at).splits[0]?.state).toBe("undoing");
    writeJournal(at, { ...journal, owner: dead, guardian: dead });
    expect(listSplits(at).splits[0]?.state).toBe("stale");
  });

  it("two splits started at the same moment do not both go on", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const one = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    const two = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    await one.apply();
    await expect(two.apply()).rejects.toMatchObject({ code: "E_FLOW_TAKEN" });
    expect(listSplits(at).splits.map((each) => each.id)).toEqual([one.id]);
  });

  it("no such split: the ones there are, by name", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    mkdirSync(at, { recursive: true });
    await expect(release(kernel, "eth0-x", { directory: at })).rejects.toMatchObject({
      code: "E_NO_SUCH_SPLIT",
    });
  });

  it("an owner that goes on after SIGTERM is named, with what ends it", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    await transaction.apply();
    const script = "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log('up')";
    const owner = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      await new Promise((resolve) => owner.stdout.once("data", resolve));
      writeJournal(at, { ...readJournals(at).journals[0]!, owner: identify(owner.pid!)! });
      await expect(release(kernel, transaction.id, { directory: at, timeout: 100 })).rejects.toMatchObject({
        code: "E_RELEASE_REFUSED",
        why: expect.stringContaining(`(pid ${owner.pid})`),
        next: expect.stringContaining(`kill -9 ${owner.pid}`),
      });
    } finally {
      owner.kill("SIGKILL");
    }
  });

  it("a missing capability is named before anything is done", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    kernel.capabilityList = ["CAP_NET_RAW"];
    const at = directory();
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch });
    const error: unknown = await transaction.apply().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "E_NOT_PRIVILEGED", why: expect.stringContaining("CAP_NET_ADMIN") });
    expect(readdirSync(at)).toEqual([]);
  });

  it("a guardian that does not come up stops the split; one that dies is replaced", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const none: LaunchGuardian = () =>
      Promise.reject(new BifurcateError("E_GUARDIAN", { what: "start the guardian", why: "no node" }));
    const failing = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch: none });
    await expect(failing.apply()).rejects.toMatchObject({ code: "E_GUARDIAN" });
    expect(settings(kernel.card("eth0"))).toEqual(settings(fakeCard()));

    const started: GuardianOptions[] = [];
    const counting: LaunchGuardian = (options) => {
      started.push(options);
      const identity = identify(started.length === 1 ? process.pid : process.ppid) ?? ownIdentity();
      return Promise.resolve({ identity, confirmed: () => undefined, dismiss: () => undefined });
    };
    const transaction = new SplitTransaction(kernel, prepare(kernel, {}, at), { launch: counting });
    const lost: string[] = [];
    await transaction.apply({ guardianLost: (error) => void lost.push(error.code) });
    started[0]?.died();
    await new Promise((resolve) => setImmediate(resolve));
    expect(started).toHaveLength(2);
    expect(readJournals(at).journals[0]?.guardian?.pid).toBe(process.ppid);
    for (let i = 1; i < 7; i++) {
      started.at(-1)?.died();
      await new Promise((resolve) => setImmediate(resolve));
    }
    // It dies again and again: not started for ever, and said.
    expect(started).toHaveLength(6);
    expect(lost).toEqual(["E_GUARDIAN"]);
    await transaction.undo();
  });

  it("confirming leaves a marker for the guardian, and the undo takes it away", async () => {
    const kernel = new FakeKernel([fakeCard()]);
    const at = directory();
    const transaction = new SplitTransaction(kernel, prepare(kernel, { confirmSeconds: 30 }, at), { launch });
    await transaction.apply();
    expect(listSplits(at).splits[0]?.confirmBy).toBeGreaterThan(0);
    transaction.confirm();
    expect(existsSync(confirmationPath(at, transaction.id))).toBe(true);
    expect(listSplits(at).splits[0]?.confirmBy).toBeNull();
    await transaction.undo();
    expect(readdirSync(at)).toEqual([]);
  });
});
