// A port over the loopback device: handlers here and in workers, what fails, and what close() leaves of the pool.

import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { BifurcateError, open, type Batch, type Port } from "bifurcate";

const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let port: Port | undefined;
afterEach(async () => {
  await port?.close({ graceMs: 200 }).catch(() => undefined);
  port = undefined;
});

async function loopback(spec = "loopback"): Promise<Port> {
  port = await open(spec);
  return port;
}

function handlerFile(name: string, source: string): { file: string } {
  const file = path.join(folder, name);
  writeFileSync(file, source);
  return { file };
}

/** The error that a promise is rejected with. */
async function errorOf(promise: Promise<unknown>): Promise<BifurcateError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error === undefined) throw new Error("it did not fail");
  return error as BifurcateError;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 100_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error("the condition never came true");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function swapMacs(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    const { at } = batch;
    const a = view.getInt32(at, true);
    const b = view.getInt32(at + 4, true);
    const c = view.getInt32(at + 8, true);
    view.setInt32(at, (b >>> 16) | (c << 16), true);
    view.setInt32(at + 4, (c >>> 16) | (a << 16), true);
    view.setInt32(at + 8, (a >>> 16) | (b << 16), true);
    batch.send();
  }
}

describe("a function on the calling thread", () => {
  it("is given every frame, and what it sends is counted sent", async () => {
    const port = await loopback();
    let frames = 0;
    const stop = new AbortController();
    await port.run(
      (batch) => {
        frames += batch.count;
        swapMacs(batch);
        if (frames > 10_000) stop.abort();
      },
      { signal: stop.signal },
    );
    expect(frames).toBeGreaterThan(10_000);
    expect(port.stats.received).toBe(frames);
    expect(port.stats.sent).toBe(frames);
    expect(port.stats.dropped).toBe(0);
  });

  it("lets timers fire while frames keep coming, and can be run again", async () => {
    const port = await loopback();
    for (let round = 0; round < 2; round++) {
      let ticks = 0;
      const timer = setInterval(() => ++ticks === 3 && void port.stop(), 1);
      await port.run(swapMacs);
      clearInterval(timer);
      expect(ticks).toBeGreaterThanOrEqual(3);
    }
  });

  it("serves all queues and is told which", async () => {
    const port = await loopback("loopback:queues=3");
    const seen = new Set<number>();
    await port.run((batch, context) => {
      seen.add(context.queue);
      expect(context.queues).toBe(3);
      while (batch.next()) batch.send();
      if (seen.size === 3) void port.stop();
    });
    expect([...seen].sort()).toEqual([0, 1, 2]);
    expect(port.stats.queues.every((queue) => queue.sent > 0)).toBe(true);
  });

  it("that throws ends the run with its own error as the cause, and its batch is dropped", async () => {
    const port = await loopback();
    const mine = new RangeError("off by one");
    const error = await errorOf(
      port.run((batch) => {
        while (batch.next()) batch.send();
        throw mine;
      }),
    );
    expect(error.code).toBe("E_HANDLER_THREW");
    expect(error.cause).toBe(mine);
    expect(port.stats.sent).toBe(0);
    expect(port.stats.dropped).toBe(port.stats.received);
    await port.run((batch) => void (batch.next(), void port.stop()));
  });

  it("goes on after errors when somebody takes them", async () => {
    const port = await loopback();
    const errors: Error[] = [];
    await port.run(
      () => {
        throw new Error("again");
      },
      { onError: (error) => errors.push(error) === 3 && void port.stop() },
    );
    expect(errors.length).toBeGreaterThanOrEqual(3);
  });

  it("that returns a Promise, or is async, is refused", async () => {
    const port = await loopback();
    const sly = (() => Promise.reject(new Error("late"))) as unknown as () => void;
    expect((await errorOf(port.run(sly))).code).toBe("E_HANDLER_PROMISE");
    expect((await errorOf(port.run(async () => {}))).code).toBe("E_HANDLER_PROMISE");
  });

  it("that keeps every frame is told so when the pool runs dry, by number", async () => {
    const port = await loopback("loopback:frames=2048");
    const error = await errorOf(
      port.run((batch) => {
        while (batch.next()) batch.keep();
      }),
    );
    expect(error.code).toBe("E_HANDLER_LEAK");
    expect(error.message).toContain("2048");
    // What it kept is back.
    await port.run((batch) => void (batch.next(), void port.stop()));
  });

  it("may keep frames for as long as it gives them back", async () => {
    const port = await loopback("loopback:frames=2048");
    const held: number[] = [];
    let frames = 0;
    await port.run((batch, context) => {
      while (batch.next()) {
        held.push(batch.keep());
        frames++;
      }
      while (held.length > 500) context.send(held.shift()!, 60);
      if (frames > 20_000) void port.stop();
    });
    expect(port.stats.sent).toBeGreaterThan(15_000);
    expect(port.stats.handlerInvalid).toBe(0);
  });

  it.each([[2 ** 32 + 60], [60, 2 ** 32], [60.5], [NaN]])(
    "has a frame dropped and counted that it sends as %d, %d: never cut down to a number that fits",
    async (length, output?: number) => {
      const port = await loopback();
      await port.run((batch) => {
        while (batch.next()) batch.send(length, output);
        void port.stop();
      });
      const { received, sent, handlerInvalid } = port.stats;
      expect([sent, handlerInvalid]).toEqual([0, received]);
    },
  );

  it("cannot run twice at once, nor on a closed port", async () => {
    const port = await loopback();
    const first = port.run(swapMacs);
    expect((await errorOf(port.run(swapMacs))).code).toBe("E_ALREADY_RUNNING");
    expect(() => port[Symbol.asyncIterator]()).toThrow(/already runs/);
    await port.close();
    await first;
    expect((await errorOf(port.run(swapMacs))).code).toBe("E_CLOSED");
    expect(port.stats.received).toBeGreaterThan(0);
  });
});

describe("for await", () => {
  it("gives batches, carries verdicts out with the next step, and gives the queues back", async () => {
    const port = await loopback("loopback:queues=2");
    let batches = 0;
    for await (const batch of port) {
      for (const frame of batch) frame.send();
      if (++batches === 10) break;
    }
    expect(port.stats.sent).toBe(port.stats.received);
    expect(port.stats.received).toBe(320);
    await port.run((batch) => void (batch.next(), void port.stop()));
  });

  it("ends when its own body stops the port, which stays open", async () => {
    const port = await loopback("loopback:queues=2");
    let batches = 0;
    for await (const batch of port) {
      while (batch.next()) batch.send();
      batches++;
      await port.stop();
    }
    expect(batches).toBe(1);
    expect(port.stats.sent).toBe(port.stats.received);
    await port.run((batch) => void (batch.next(), void port.stop()));
  });

  it("ends when its own body closes the port, with the verdicts so far", async () => {
    const port = await loopback("loopback:queues=2");
    let batches = 0;
    for await (const batch of port) {
      batch.next();
      batch.send();
      batches++;
      await port.close();
    }
    expect(batches).toBe(1);
    expect(port.stats).toMatchObject({ received: 32, sent: 1, dropped: 31 });
  });

  it("that keeps every frame fails, since it has no way to give one back", async () => {
    const port = await loopback("loopback:frames=64");
    const loop = async (): Promise<void> => {
      for await (const batch of port) while (batch.next()) batch.keep();
    };
    expect(await errorOf(loop())).toMatchObject({ code: "E_HANDLER_LEAK", data: { kept: 64 } });
    expect(port.stats.kept).toBe(0);
  });

  it("is refused while another loop runs, which that does not disturb", async () => {
    const port = await loopback();
    const [first, second] = [port[Symbol.asyncIterator](), port[Symbol.asyncIterator]()];
    await first.next();
    expect(await errorOf(second.next())).toMatchObject({ code: "E_ALREADY_RUNNING" });
    await port.stop();
    expect(await first.next()).toEqual({ done: true, value: undefined });
  });
});

describe("close", () => {
  it("tries again after it failed", async () => {
    const port = await loopback();
    const { backing } = port as unknown as {
      backing: { close: (shut: () => Promise<void>) => Promise<void> };
    };
    const real = backing.close;
    backing.close = () => Promise.reject(new Error("not now"));
    expect((await errorOf(port.close())).message).toBe("not now");
    backing.close = real;
    await port.close();
    expect(await errorOf(port.run(() => undefined))).toMatchObject({ code: "E_CLOSED" });
  });

  it("ends a run whose handler file is still being made ready", async () => {
    const port = await loopback();
    const run = port.run(handlerFile("late.ts", "export function handle(): void {}"));
    await port.close();
    await run;
  });
});

describe("a handler file", () => {
  const swap = `
    import type { Batch, Context } from "bifurcate";
    import { threadId } from "node:worker_threads";
    enum Word { Zero }
    export function start(context: Context): void { if (threadId === Word.Zero) throw new Error("not in a worker"); }
    export function handle(batch: Batch): void { while (batch.next()) batch.send(); }`;

  it("runs in one worker a queue, TypeScript of any kind, with a busy main thread", async () => {
    const port = await loopback("loopback:queues=2");
    const run = port.run(handlerFile("swap.ts", swap));
    await until(() => port.stats.queues.every((queue) => queue.sent > 1000));
    const before = port.stats.sent;
    // Not once back to the event loop.
    for (const end = Date.now() + 60_000; port.stats.sent === before && Date.now() < end;);
    expect(port.stats.sent).toBeGreaterThan(before);
    await port.stop();
    await run;
    expect(port.stats.sent).toBe(port.stats.received);
  });

  it("has its workers bound to the processors it names, and refuses one that is not there", async () => {
    const port = await loopback();
    const file = handlerFile(
      "bound.ts",
      `import { readFileSync } from "node:fs";
       export function start(): void {
         const allowed = /Cpus_allowed_list:\\s*(\\S+)/.exec(readFileSync("/proc/thread-self/status", "utf8"))![1];
         if (allowed !== "0") throw new Error("bound to " + allowed);
       }
       export function handle(batch: { next(): boolean }): void { batch.next(); }`,
    );
    const run = port.run({ ...file, cores: [0] });
    await until(() => port.stats.received > 100);
    await port.stop();
    await run;
    expect((await errorOf(port.run({ ...file, cores: [4000] }))).message).toContain("4000");
  });

  it("clears away what killed processes left of theirs, and nothing else", async () => {
    const namespace = /\d+/.exec(readlinkSync("/proc/self/ns/pid"))![0];
    const startTime = (pid: number): string =>
      readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]!.split(" ")[19]!;
    const make = (owner: string): string => mkdtempSync(path.join(tmpdir(), `bifurcate-handler-${owner}-`));
    // A number that was given to another process since, one that nobody has, a living one, another namespace.
    const dead = [make(`${namespace}-${process.pid}-1`), make(`${namespace}-4194305-77`)];
    const alive = [make(`${namespace}-${process.pid}-${startTime(process.pid)}`), make("1-4194305-77")];
    const port = await loopback();
    const run = port.run(handlerFile("sweeps.ts", "export const handle = () => {};"));
    await until(() => port.stats.received > 0);
    await port.stop();
    await run;
    expect([...dead, ...alive].filter((each) => existsSync(each))).toEqual(alive);
    for (const each of alive) rmSync(each, { recursive: true });
    const own = `bifurcate-handler-${namespace}-${process.pid}-`;
    expect(readdirSync(tmpdir()).filter((each) => each.startsWith(own))).toEqual([]);
  });

  it("that throws ends the run with its message, and the stack points into the file", async () => {
    const port = await loopback();
    const file = handlerFile(
      "throws.ts",
      `export function handle(): void {\n  throw new TypeError("no luck");\n}`,
    );
    const error = await errorOf(port.run(file));
    expect(error.code).toBe("E_HANDLER_THREW");
    expect(error.message).toContain("no luck");
    expect((error.cause as Error).stack).toContain("throws");
  });

  it("that hangs does not keep close() from closing, and is named", async () => {
    const port = await loopback();
    const file = handlerFile(
      "hangs.ts",
      `let turns = 0; export function handle(): void { if (++turns > 3) for (;;); }`,
    );
    const run = errorOf(port.run(file));
    await until(() => port.stats.received >= 128);
    await port.close({ graceMs: 50 });
    const error = await run;
    expect(error.code).toBe("E_HANDLER_HANGS");
    expect(error.message).toContain("hangs.ts");
  });

  it("that comes back soon after the machine stood still is none that hangs", async () => {
    const port = await loopback();
    const stop = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5900);";
    const source = `export function handle(): void {} export function stop(): void { ${stop} }`;
    const run = port.run(handlerFile("slow.ts", source));
    await until(() => port.stats.received > 0);
    const stopped = port.stop({ graceMs: 5000 });
    // As all of a machine does that is not given its processors for a while.
    setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5500), 100);
    await stopped;
    await run;
    await port.close();
  });

  it.each([
    ["module", "begun(); for (;;); export function handle(): void {}", /its module or its start\(\)/],
    [
      "start()",
      "export function handle(): void {} export const start = () => (begun(), forever());",
      /its module or its start\(\)/,
    ],
    ["stop()", "export function handle(): void {} export const stop = forever;", /its stop\(\)/],
  ])("whose %s never ends is ended by stop() and by close()", async (where, source, why) => {
    for (const how of ["stop", "close"] as const) {
      const mark = path.join(folder, `begun-${where}-${how}`);
      const helpers = `import { writeFileSync } from "node:fs";
        const begun = () => writeFileSync(${JSON.stringify(mark)}, "");
        const forever = () => new Promise(() => setInterval(() => {}, 1000));`;
      const port = await loopback();
      const run = errorOf(port.run(handlerFile("forever.ts", `${helpers} ${source}`)));
      if (where === "stop()") await until(() => port.stats.received > 0);
      else await until(() => existsSync(mark));
      await port[how]({ graceMs: 50 });
      const error = await run;
      expect(error.code).toBe("E_HANDLER_HANGS");
      expect(error.message).toMatch(why);
      await port.close();
    }
  });

  it("that never loads is ended also when it is stopped before it has threads", async () => {
    const port = await loopback();
    const run = errorOf(port.run(handlerFile("forever.ts", "for (;;); export function handle(): void {}")));
    // It is still being bundled.
    await port.stop({ graceMs: 50 });
    const error = await run;
    expect(error.code).toBe("E_HANDLER_HANGS");
    expect(error.message).toMatch(/its module or its start\(\)/);
    await port.close();
  });

  it("that is slow to load has the whole time that stop() gives it, also while it is being bundled", async () => {
    const port = await loopback();
    const source = `await new Promise((resolve) => setTimeout(resolve, 4000)); export function handle(): void {}`;
    const run = port.run(handlerFile("slow-load.ts", source));
    await port.stop({ graceMs: 120_000 });
    await run;
    await port.close();
  });

  it("that never loads is ended also when the port fails before it has threads", async () => {
    const port = await loopback();
    const run = errorOf(port.run(handlerFile("forever.ts", "for (;;); export function handle(): void {}")));
    port.fail(new BifurcateError("E_INTERFACE_GONE", { what: "read it", why: "it is gone" }));
    expect((await run).code).toBe("E_INTERFACE_GONE");
    await port.close();
  });

  it.each([
    ["missing.ts", undefined, /no such file/],
    ["syntax.ts", "export function handle( {", /syntax\.ts:1:/],
    ["empty.ts", "export const x = 1;", /exports no function named handle .*: x/],
    ["import.ts", 'import "./not-there.js"; export function handle() {}', /not-there/],
    ["load.ts", 'throw new Error("at load"); export function handle() {}', /at load/],
  ])("that cannot be used is refused: %s", async (name, source, message) => {
    const port = await loopback();
    const file = source === undefined ? { file: path.join(folder, name) } : handlerFile(name, source);
    const error = await errorOf(port.run(file));
    expect(error.code).toBe("E_HANDLER_FILE");
    expect(error.message).toMatch(message);
    await port.run((batch) => void (batch.next(), void port.stop()));
  });
});

describe("a handler in Rust", () => {
  it("reflects until it is stopped", async () => {
    const port = await loopback("loopback:queues=2");
    const run = port.runNative("reflect");
    await until(() => port.stats.sent > 10_000);
    await port.stop();
    await run;
    expect(port.stats.sent).toBe(port.stats.received);
  });

  it("forwards to another port, whose close ends it", async () => {
    const from = await loopback();
    const to = await open("loopback");
    const run = from.runNative("forward", { to });
    await until(() => to.stats.sent > 10_000);
    await to.close();
    await run;
    expect(from.stats.sent).toBe(0);
  });
});

describe("close()", () => {
  it("leaves zeros to whoever kept the view", async () => {
    const port = await loopback();
    let kept: DataView | undefined;
    await port.run((batch) => {
      kept = batch.view;
      void port.stop();
    });
    const view = kept!;
    const sum = (): number => {
      let sum = 0;
      for (let at = 0; at < view.byteLength; at += 64) sum += view.getUint8(at);
      return sum;
    };
    expect(sum()).toBeGreaterThan(0);
    await port.close();
    expect(sum()).toBe(0);
    view.setUint8(view.byteLength - 1, 7);
  });

  it("from this thread never faults another that reads all the while", async () => {
    const port = await loopback();
    // A worker that reads the pool without pause, and never gives its queue back by itself: it is let go, its view kept.
    const reader = new Worker(
      `const { workerData, parentPort } = require("node:worker_threads");
       import(workerData.addon).then(({ takeQueue }) => {
         const queue = takeQueue(workerData.id, 0);
         const bytes = new Uint8Array(queue.pool());
         queue.release();
         parentPort.postMessage("reading");
         let rounds = 0;
         for (const end = Date.now() + 1500; Date.now() < end || rounds < 2; rounds++) {
           let sum = 0;
           for (let at = 0; at < bytes.length; at += 512) { sum += bytes[at]; bytes[at] = 1; }
         }
         let left = 0;
         bytes.fill(0);
         for (const byte of bytes) left += byte;
         parentPort.postMessage({ rounds, left });
       });`,
      {
        eval: true,
        workerData: {
          addon: import.meta.resolve("@bifurcate/addon"),
          id: (port as unknown as { inner: { native: { id: number } } }).inner.native.id,
        },
      },
    );
    const messages: unknown[] = [];
    const exited = new Promise<number>((resolve) => reader.on("exit", resolve));
    reader.on("message", (message) => messages.push(message));
    await until(() => messages.length === 1);
    await port.close();
    expect(await exited).toBe(0);
    expect(messages[1]).toMatchObject({ left: 0 });
    expect((messages[1] as { rounds: number }).rounds).toBeGreaterThan(1);
  });

  it("twice is once, and `await using` closes", async () => {
    const port = await loopback();
    await Promise.all([port.close(), port.close()]);
    await port[Symbol.asyncDispose]();
    expect(port.closed).toBe(true);
  });
});

describe("a runtime that forbids external buffers", () => {
  it("is told so by code, and gets no copy", async () => {
    const port = await loopback();
    const inner = (port as unknown as { inner: { takeQueue: (id: number, place: number) => object } }).inner;
    const { takeQueue } = inner;
    inner.takeQueue = (id, place) => {
      const queue = takeQueue(id, place);
      const forbidden = Object.assign(new Error("no external buffers (status 22)"), {
        code: "E_EXTERNAL_BUFFERS",
      });
      return Object.assign(queue, {
        pool: () => {
          throw forbidden;
        },
      });
    };
    expect((await errorOf(port.run(swapMacs))).code).toBe("E_EXTERNAL_BUFFERS");
    inner.takeQueue = takeQueue;
    await port.run((batch) => void (batch.next(), void port.stop()));
  });
});

describe("open", () => {
  it.each([
    "eth0",
    "loopback:queues=0",
    "loopback:colour=red",
    "loopback:frames=4294967296",
    "loopback:order=warm",
  ])("refuses %s", async (spec) => {
    expect((await errorOf(open(spec))).code).toBe("E_BAD_OPTION");
  });
});
