// A handler that sends out of other ports: loopback devices, which count what they were given to send.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { open, type Batch, type BifurcateError, type Context, type Port } from "bifurcate";

const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ports: Port[] = [];
afterEach(async () => {
  for (const port of ports.splice(0)) await port.close({ graceMs: 500 }).catch(() => undefined);
});

async function loopback(spec = "loopback"): Promise<Port> {
  const port = await open(spec);
  ports.push(port);
  return port;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "nothing",
    (thrown: unknown) => (thrown as BifurcateError).code,
  );
}

/** Sends every third frame out of port 0, 1 and 2; and asks for one that is not there. */
function spread(batch: Batch): void {
  for (let n = 0; batch.next(); n++) {
    if (n < 3) batch.send(batch.size, n);
    else if (n === 3) batch.send(batch.size, 3);
    else if (n === 4) batch.send(batch.size, -1);
  }
}

describe("outputs of a run", () => {
  it("are reached by number; 0 is the port itself, and a number that is none drops the frame", async () => {
    const [port, one, two] = [await loopback(), await loopback("loopback:frames=64"), await loopback()];
    let batches = 0;
    await port.run(
      (batch) => {
        spread(batch);
        if (++batches === 10) void port.stop();
      },
      { outputs: [one, two] },
    );
    expect(port.stats.sent).toBe(batches);
    expect(one.stats.sent).toBe(batches);
    expect(two.stats.sent).toBe(batches);
    expect(port.stats.handlerInvalid).toBe(2 * batches);
    expect(port.stats.received).toBe(port.stats.sent + port.stats.dropped + 2 * batches);
  });

  it("are reached from every worker, also with fewer queues than those, and by kept frames", async () => {
    const [port, to] = [await loopback("loopback:queues=3"), await loopback()];
    const file = path.join(folder, "out.ts");
    writeFileSync(
      file,
      `let batches = 0;
       export function handle(batch, context) {
         if (batches++ >= 100) return;
         batch.next();
         batch.send(60, 1);
         batch.next();
         context.send(batch.keep(), 60, 1);
       }`,
    );
    const run = port.run({ file }, { outputs: [to] });
    while (to.stats.sent < 600) await new Promise((resolve) => setTimeout(resolve, 5));
    await port.stop();
    await run;
    expect(to.stats.sent).toBe(600);
    expect(port.stats.handlerInvalid).toBe(0);
    expect(port.stats.kept).toBe(0);
  });

  it("go both ways at once between two ports, and again after the runs have ended", async () => {
    const [left, right] = [await loopback(), await loopback()];
    for (let round = 0; round < 2; round++) {
      const before = [left.stats.sent, right.stats.sent];
      const across = (batch: Batch, port: Port): void => {
        while (batch.next()) batch.send(batch.size, 1);
        if (left.stats.sent > before[0]! + 100 && right.stats.sent > before[1]! + 100) void port.stop();
      };
      await Promise.all([
        left.run((batch) => across(batch, left), { outputs: [right] }),
        right.run((batch) => across(batch, right), { outputs: [left] }),
      ]);
    }
    expect(left.stats.handlerInvalid + right.stats.handlerInvalid).toBe(0);
  });

  it("end the run when they are closed", async () => {
    const [port, to] = [await loopback(), await loopback()];
    const run = port.run((batch) => void (batch.next() && batch.send(60, 1)), { outputs: [to] });
    await to.close();
    await run;
    expect(await codeOf(port.run(() => undefined, { outputs: [to] }))).toBe("E_CLOSED");
    await port.run((batch) => void (batch.next(), void port.stop()));
  });

  it("cannot be what is no port, the port itself, or one whose handler has its queues for itself", async () => {
    const [port, to] = [await loopback(), await loopback()];
    const nothing = (): void => undefined;
    expect(await codeOf(port.run(nothing, { outputs: [{} as Port] }))).toBe("E_BAD_OPTION");
    expect(await codeOf(port.run(nothing, { outputs: [port] }))).toBe("E_BAD_OPTION");
    const busy = to.run(nothing);
    expect(await codeOf(port.run(nothing, { outputs: [to] }))).toBe("E_ALREADY_RUNNING");
    await to.stop();
    await busy;
    const open = to.run(nothing, { outputs: [] });
    await port.run((batch) => void (batch.next(), batch.send(60, 1), void port.stop()), { outputs: [to] });
    expect(to.stats.sent).toBeGreaterThan(0);
    await to.stop();
    await open;
  });
});

describe("stats.kept", () => {
  it("says how many frames a handler has in hand, and nothing once they have ended", async () => {
    const port = await loopback();
    const keys: number[] = [];
    const seen: number[] = [];
    await port.run((batch: Batch, context: Context) => {
      seen.push(port.stats.kept);
      if (seen.length === 1) while (batch.next()) keys.push(batch.keep());
      else if (seen.length === 2) for (const key of keys.splice(0, 10)) context.release(key);
      else if (seen.length === 3) for (const key of keys.splice(0, 10)) context.send(key, 60);
      else if (seen.length === 4) void port.stop();
    });
    expect(seen.slice(0, 4)).toEqual([0, 32, 22, 12]);
    const { received, sent, dropped, kept } = port.stats;
    expect(kept).toBe(0);
    expect(sent).toBe(10);
    expect(received).toBe(sent + dropped);
  });
});
