// Every mistake in an object of options is E_BAD_OPTION, and says which option, what it was and what it may be.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { BifurcateError, open, openSender, split, type Port } from "bifurcate";
import { shown } from "./check-options.js";
import { poolFrames } from "./pool.js";
import { processorsOf } from "./processors.js";

/** Calls as a program in JavaScript may, whatever the types say. */
type Untyped = (...args: readonly unknown[]) => Promise<unknown>;

async function failure(promise: Promise<unknown>): Promise<BifurcateError> {
  const thrown = await promise.then(
    () => new Error("it did not fail"),
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(BifurcateError);
  return thrown as BifurcateError;
}

const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-options-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let port: Port;
beforeEach(async () => {
  port = await open("loopback");
});
afterEach(() => port.close());

/** The port can still be run and stopped. */
async function works(): Promise<void> {
  await port.run((batch) => void (batch.next(), void port.stop()));
}

describe("split", () => {
  const flows = "udp dst port 53";
  const bad: [string, unknown, RegExp][] = [
    ["zerocopy", { flows, zerocopy: "require" }, /no option "zerocopy"; the nearest is zeroCopy/],
    ["queue", { flows, queue: [1] }, /no option "queue"; the nearest is queues/],
    ["flow", { flow: flows }, /no option "flow"; the nearest is flows/],
    ["zeroCopy", { flows, zeroCopy: true }, /zeroCopy is true, and has to be "require", "prefer", "off"/],
    ["steering", { flows, steering: "foo" }, /steering is "foo".*"lease"/],
    ["via", { flows, via: "x" }, /via is "x".*"in-process"/],
    ["transmit", { flows, transmit: "x" }, /transmit is "x".*"raw"/],
    ["pass", { flows, pass: "x" }, /pass is "x".*true or false/],
    ["tap", { flows, tap: 5 }, /tap is 5/],
    ["tap", { flows, tap: "" }, /tap is ""/],
    ["metadata", { flows, metadata: ["foo"] }, /metadata is \["foo"\].*"hash", "timestamp", "vlan"/],
    ["metadata", { flows, metadata: "hash" }, /metadata is "hash"/],
    ["queues", { flows, queues: "0" }, /queues is "0".*whole number/],
    ["queues", { flows, queues: ["0"] }, /queues is \["0"\]/],
    ["queues", { flows, queues: [0, 0] }, /queues is \[0, 0\].*twice/],
    ["queues", { flows, queues: [] }, /queues is \[\]/],
    ["queues", { flows, queues: null }, /queues is null/],
    ["queues", { flows, queues: 0 }, /queues is 0.*from 1 to/],
    ...[3.7, 0, -1, 1, 63, 1e10, 2 ** 30 + 16, NaN, "4096"].map((frames): [string, unknown, RegExp] => [
      "frames",
      { flows, frames },
      /frames is .* whole number from 64 to/,
    ]),
    ["pages", { flows, pages: "x" }, /pages is "x".*"huge"/],
    ["mode", { flows, mode: "skb" }, /mode is "skb".*"generic"/],
    ["backend", { flows, backend: "xdp" }, /backend is "xdp".*"af_xdp"/],
    ["flows", { flows: 53 }, /flows is 53/],
    ["flows", { flows: [53] }, /flows is \[53\]/],
    ["flows", { flows: null }, /flows is null/],
    ["busyPoll", { flows, busyPoll: "yes" }, /busyPoll is "yes"/],
    ["netns", { flows, netns: 5 }, /netns is 5/],
    ...[-10, -5, 0, NaN, Infinity, true, "30", 31 * 86_400].map(
      (confirmSeconds): [string, unknown, RegExp] => [
        "confirmSeconds",
        { flows, confirmSeconds },
        /confirmSeconds is .* a number above 0, at most 2592000, or null/,
      ],
    ),
    ["onWarning", { flows, onWarning: "x" }, /onWarning is "x".*a function/],
    ["options", null, /options is null, and has to be an object/],
    ["options", 5, /options is 5/],
  ];
  it.each(bad)("refuses %s: %j", async (option, options, why) => {
    const error = await failure((split as Untyped)("nosuchcard", options));
    expect(error.code).toBe("E_BAD_OPTION");
    expect(error.what).toBe("split nosuchcard");
    expect(error.why).toMatch(why);
    expect(error.next).toContain(option === "zerocopy" || option === "queue" ? "zeroCopy, mode" : option);
    expect(error.data).toMatchObject({ option });
  });

  it("refuses a getter that throws", async () => {
    const options = {
      flows,
      get queues(): number {
        throw new Error("mine");
      },
    };
    expect((await failure(split("nosuchcard", options))).code).toBe("E_BAD_OPTION");
  });

  it("refuses a name that is none, and says when no flow was named", async () => {
    expect((await failure((split as Untyped)(5, { flows }))).why).toMatch(/the interface is 5/);
    expect((await failure((split as Untyped)("nosuchcard"))).code).toBe("E_NO_FLOW");
    expect((await failure(split("nosuchcard", { flows: [] }))).code).toBe("E_NO_FLOW");
  });

  it("takes every value that the types allow, and then looks for the card", async () => {
    const options = {
      flows: [flows],
      queues: [1, 0],
      confirmSeconds: null,
      netns: null,
      metadata: [],
      tap: false,
    };
    const error = await failure(
      split("nosuchcard", { ...options, via: "in-process", frames: 64, backend: undefined }),
    );
    expect(error.code).toBe("E_NO_SUCH_INTERFACE");
  });
});

describe("open and openSender", () => {
  it.each([
    [["loopback", { tpa: "x" }], /no option "tpa"; the nearest is tap/],
    [["loopback", { tap: 5 }], /tap is 5/],
    [["loopback", { tap: "x.pcapng" }], /tap has nothing to see/],
    [["loopback", null], /options is null/],
    [[5], /the device is 5/],
  ])("open refuses %j", async (args, why) => {
    const error = await failure((open as Untyped)(...args));
    expect([error.code, error.why]).toEqual(["E_BAD_OPTION", expect.stringMatching(why)]);
    expect(existsSync("x.pcapng")).toBe(false);
  });

  it.each([
    [["lo", { queue: 4 }], /no option "queue"; the nearest is queues/],
    [["lo", { queues: 1.5 }], /queues is 1.5/],
    [["lo", { queues: 65 }], /from 1 to 64/],
    [[undefined], /the interface is undefined/],
  ])("openSender refuses %j", async (args, why) => {
    const error = await failure((openSender as Untyped)(...args));
    expect([error.code, error.why]).toEqual(["E_BAD_OPTION", expect.stringMatching(why)]);
  });

  it("a socket in a folder that is not there names the folder", async () => {
    const error = await failure(open(`vhost-user:${folder}/none/x.sock,server`));
    expect([error.code, error.why]).toEqual([
      "E_BAD_OPTION",
      expect.stringContaining(`no folder ${folder}/none`),
    ]);
  });

  it.each([
    ["a folder that is not there", () => path.join(folder, "none", "x.pcapng")],
    ["a full disk", () => "/dev/full"],
  ])("a capture file on %s is named, with the option", async (_, file) => {
    const error = await failure(open(`vhost-user:${folder}/tap.sock,server`, { tap: file() }));
    expect(error.code).toBe("E_OUTPUT");
    expect(error.what).toContain(`${file()} (tap, --tap)`);
    expect(error.next).toContain("folder");
  });
});

describe("run", () => {
  const handler = (): void => undefined;
  const file = path.join(folder, "handler.ts");
  writeFileSync(file, "export function handle(batch) { throw new Error('mine'); }");
  it.each([
    [[handler, { signl: 1 }], /no option "signl"; the nearest is signal/],
    [[handler, { signal: "x" }], /signal is "x".*AbortSignal/],
    [[handler, { onError: "x" }], /onError is "x"/],
    [[handler, { outputs: "x" }], /outputs is "x"/],
    [[handler, null], /options is null/],
    [[{ file, cors: [1] }], /no option "cors"; the nearest is cores/],
    [[{ file: 5 }], /file is 5/],
    [[{ file, cores: [1.5] }], /cores is \[1.5\]/],
    [[{ file, cores: [] }], /cores is \[\].*at least one/],
    [[{ file, cores: "0" }], /cores is "0"/],
    [[{ file, cores: [4000] }], /no processor 4000/],
    [[{ file, stdout: 1 }], /stdout is 1/],
  ])("refuses %j, and the port stays as it is", async (args, why) => {
    const error = await failure((port.run.bind(port) as Untyped)(...args));
    expect([error.code, error.why]).toEqual(["E_BAD_OPTION", expect.stringMatching(why)]);
    await works();
  });

  it("a signal that throws leaves the port free", async () => {
    const angry = (): void => {
      throw new Error("mine");
    };
    const signal = { aborted: false, addEventListener: angry, removeEventListener: () => undefined };
    const error = await failure((port.run.bind(port) as Untyped)(handler, { signal }));
    expect(error.why).toContain("mine");
    await works();
    // It also throws when it is let go.
    const twice = { ...signal, removeEventListener: angry };
    await (port.run.bind(port) as Untyped)(handler, { signal: twice }).catch(() => undefined);
    await works();
  });

  it.each([
    ["a function", () => () => void JSON.parse("{")],
    ["a file", () => ({ file })],
  ])("an onError that throws ends the run of %s, with its error as the cause", async (_, make) => {
    const mine = new RangeError("from onError");
    const onError = (): void => {
      throw mine;
    };
    const error = await failure(port.run(make(), { onError }));
    expect(error).toMatchObject({
      code: "E_HANDLER_THREW",
      why: "onError threw RangeError: from onError",
      cause: mine,
    });
    await works();
  });

  it("a function with a then is a Promise too, and a then that throws is the handler's error", async () => {
    const callable = Object.assign(() => undefined, { then: () => undefined });
    expect((await failure((port.run.bind(port) as Untyped)(() => callable))).code).toBe("E_HANDLER_PROMISE");
    const angry = {
      get then(): never {
        throw new Error("mine");
      },
    };
    const error = await failure((port.run.bind(port) as Untyped)(() => angry));
    expect([error.code, error.why]).toEqual(["E_HANDLER_THREW", expect.stringContaining("mine")]);
    await works();
  });
});

describe("runNative", () => {
  it.each([
    [["drop", { cores: [4000] }], /no processor 4000/],
    [["drop", { cores: [-1] }], /cores is \[-1\]/],
    [["nope"], /the handler is "nope".*"drop", "count", "reflect", "forward"/],
    [["forward"], /needs a port/],
    [["forward", { to: 5 }], /to is 5.*a Port/],
    [["forward", { to: {} }], /to is an object/],
    [["drop", null], /options is null/],
  ])("refuses %j", async (args, why) => {
    const error = await failure((port.runNative.bind(port) as Untyped)(...args));
    expect([error.code, error.why]).toEqual(["E_BAD_OPTION", expect.stringMatching(why)]);
    await works();
  });

  it("says so when the port to send to is closed, or with another handler", async () => {
    const to = await open("loopback");
    const run = to.runNative("reflect");
    expect((await failure(port.runNative("forward", { to }))).code).toBe("E_ALREADY_RUNNING");
    await to.close();
    await run;
    expect((await failure(port.runNative("forward", { to }))).code).toBe("E_CLOSED");
    await works();
  });
});

it.each([["x"], [-1], [1.5], [2 ** 31], [null], [Infinity]])(
  "stop and close refuse graceMs %j, and nothing has happened",
  async (graceMs) => {
    for (const call of [port.stop.bind(port), port.close.bind(port)] as unknown as Untyped[]) {
      const error = await failure(call({ graceMs }));
      expect([error.code, error.why]).toEqual([
        "E_BAD_OPTION",
        expect.stringMatching(/graceMs is .* from 0 to/),
      ]);
    }
    expect(port.closed).toBe(false);
    await works();
  },
);

it("a pool of several queues is less than 2 GiB", () => {
  expect(poolFrames("split x", 4096, 4, 192)).toBe(16_384);
  expect(poolFrames("split x", 2 ** 20 - 1, 1)).toBe(2 ** 20 - 1);
  expect(poolFrames("split x", 2 ** 18 - 1, 4)).toBe(2 ** 20 - 4);
  expect(() => poolFrames("split x", 2 ** 18, 4)).toThrow(/at most 262143/);
  expect(() => poolFrames("split x", 2 ** 20 - 1, 1, 48)).toThrow(/2 GiB/);
});

it("the kernel's list of processors", () => {
  expect([...processorsOf("0-2,5")]).toEqual([0, 1, 2, 5]);
});

it("shows whatever was given, and calls nothing of it", () => {
  const angry = { toString: () => expect.fail("called"), toJSON: () => expect.fail("called") };
  expect([angry, [angry, [1]], 5n, Symbol("x"), -0, "x".repeat(99)].map((each) => shown(each))).toEqual([
    "an object",
    "[an object, a list]",
    "5n",
    "a symbol",
    "-0",
    `"${"x".repeat(60)}..."`,
  ]);
});
