// What a port's queues come to when something goes wrong with those who have them: failed runs, ended workers, closes.

import fs from "node:fs";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, it } from "vitest";
import type { NativePort } from "./index.js";

const built = fs.existsSync(new URL("./bifurcate.node", import.meta.url));
// Without the built addon the import itself fails.
const addon = built ? await import("./index.js") : undefined;

const open: NativePort[] = [];
afterEach(async () => {
  for (const port of open.splice(0)) await port.close(20_000);
});

function native(): typeof import("./index.js") {
  if (addon === undefined) throw new Error("the addon is not built");
  return addon;
}

function loopback(queues: number): NativePort {
  const port = native().openLoopback({ queues, frames: 4096, frameSize: 2048, length: 60, order: "hot" });
  open.push(port);
  return port;
}

function codeOf(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code;
  }
}

/** Threads of this process that turn a loop. */
function loops(): number {
  const names = fs.readdirSync("/proc/self/task").map((task) => {
    try {
      return fs.readFileSync(`/proc/self/task/${task}/comm`, "utf8");
    } catch {
      return ""; // it has ended meanwhile
    }
  });
  return names.filter((name) => name.startsWith("bf-loop-")).length;
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 100_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error("the condition never came true");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe.skipIf(!built)("the queues of a port (needs the built addon)", () => {
  it("come back from a run that failed on a processor that is not there", async () => {
    const port = loopback(3);
    const run = port.runNative({ do: "drop", cores: [0, 9999] });
    await expect(run).rejects.toMatchObject({ code: "EINVAL" });
    const second = port.runNative({ do: "drop" });
    expect(await port.stop(20_000)).toEqual([]);
    await second;
    expect(await port.close(0)).toEqual([]);
  });

  it("come back from a run that could not be started, each with its own sending half", async () => {
    const [from, to] = [loopback(3), loopback(3)];
    const alone = native().takeQueue(to.id, 1);
    expect(codeOf(() => from.runNative({ do: "forward" }, to))).toBe("EBUSY");
    alone.release();
    const run = from.runNative({ do: "reflect" });
    await until(() => from.stats().queues.every((queue) => queue.sent > 0));
    expect(to.stats().total.sent).toBe(0);
    expect(await from.stop(20_000)).toEqual([]);
    await run;
  });

  it("are nobody's to take once a close has begun", async () => {
    const port = loopback(2);
    const held = native().takeQueue(port.id, 0);
    const closing = port.close(20_000);
    await until(() => codeOf(() => native().takeQueue(port.id, 1).release()) === "EBUSY");
    held.release();
    expect(await closing).toEqual([]);
  });

  it("can be had again after a close that ran out of time", async () => {
    const port = loopback(2);
    const held = native().takeQueue(port.id, 0);
    expect(await port.close(0)).toEqual([0]);
    native().takeQueue(port.id, 1).release();
    held.release();
    expect(await port.close(20_000)).toEqual([]);
  });

  it("are not turned any more when the worker that opened the port has ended", async () => {
    const source = `
      const { openLoopback } = await import(${JSON.stringify(new URL("./index.js", import.meta.url).href)});
      const { parentPort } = await import("node:worker_threads");
      const port = openLoopback({ queues: 2, frames: 4096, frameSize: 2048, length: 60, order: "hot" });
      void port.runNative({ do: "drop" });
      parentPort.postMessage("running");
      setInterval(() => undefined, 1000);`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
    await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    await until(() => loops() === 2);
    await worker.terminate();
    await until(() => loops() === 0);
  });
});
