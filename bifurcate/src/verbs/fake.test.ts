// Ports over verbs from end to end, on a machine without RDMA: two processes over a fake libibverbs that is built against
// rdma-core's header, and what it does wrong when it is told to.

import { fork, type ChildProcess } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { RunningSplit, startHere, type StreamEvent } from "@bifurcate/lab/harness";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { bundlePeer } from "../testing/bundle-peer.js";
import { buildFake, cannotBuild } from "../testing/fake-ibverbs.js";

/** An address of this file's own: nobody else is given a port of it that was found free. */
const HERE = "127.0.77.2";
/** Below the ports that the kernel gives out by itself: the UDP port of the wire, and the next. */
const WIRE = 20_000 + 2 * (process.pid % 6000);

const built = mkdtempSync(path.join(tmpdir(), "bifurcate-fake-"));
let peerFile: string;
const children: ChildProcess[] = [];
const commands: RunningSplit[] = [];

beforeAll(() => {
  if (cannotBuild !== null) return;
  buildFake(built);
  peerFile = bundlePeer(built);
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const command of commands.splice(0)) await command.end("SIGKILL");
});
afterAll(() => rmSync(built, { recursive: true, force: true }));

async function freePort(): Promise<number> {
  const server = createServer().listen(0, HERE);
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

/** A process that has the fake, opens a spec, and does round trips or swaps when it is told. */
async function peer(spec: string): Promise<(what: object) => Promise<unknown>> {
  const child = fork(peerFile, [spec], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    env: { ...process.env, LD_LIBRARY_PATH: built },
  });
  children.push(child);
  const answer = async (): Promise<unknown> => ((await once(child, "message")) as [unknown])[0];
  await answer();
  return (what) => {
    child.send(what);
    return answer();
  };
}

/** A command with the fake, told what to do wrong. */
function command(words: readonly string[], faults: NodeJS.ProcessEnv = {}): RunningSplit {
  const [name = "", ...rest] = words;
  const running = new RunningSplit(startHere(rest, { LD_LIBRARY_PATH: built, ...faults }, name));
  commands.push(running);
  return running;
}

/** Both ends: one that reflects, and one that a loopback device sends by; told what to do wrong. They run until they are ended. */
async function ends(
  here: NodeJS.ProcessEnv,
  there: NodeJS.ProcessEnv = {},
): Promise<{ reflector: RunningSplit; source: RunningSplit }> {
  const port = await freePort();
  const reflector = command(["open", `verbs:fake0,server=${HERE}:${port}`, "--do", "reflect"], here);
  await reflector.event("open");
  const spec = `verbs:fake1,peer=${HERE}:${port}`;
  const source = command(["forward", "loopback:length=200", spec], there);
  return { reflector, source };
}

interface Stats {
  readonly received: number;
  readonly sent: number;
  readonly deviceError: number;
}

/** Waits until an end has set a queue pair up again, and has received more than 500 frames. */
async function goesOn(end: RunningSplit, received: (event: StreamEvent) => number): Promise<void> {
  await end.event("warning", ({ text }) => String(text).includes("was set up again"));
  await end.event("rates", (event) => received(event) > 500);
}

const warnings = ({ events }: RunningSplit): string[] =>
  events.filter(({ event }) => event === "warning").map(({ text }) => String(text));

describe.skipIf(cannotBuild !== null)(
  `two processes over a fake libibverbs${cannotBuild === null ? "" : ` (skipped: ${cannotBuild})`}`,
  () => {
    it.each([
      ["", 60],
      ["", 1700],
      [",queues=2,ringSize=64", 300],
      [",frameSize=4096", 2000],
    ])("frames there and back: %s, %i bytes", async (keys, length) => {
      const port = await freePort();
      const device = await peer(`verbs:fake0,server=${HERE}:${port}${keys}`);
      const driver = await peer(`verbs:fake1,peer=${HERE}:${port}${keys}`);
      expect(await device({ swap: true })).toBe("swapping");
      expect(await driver({ trips: 1500, length })).toMatchObject({ returned: 1500 });
    });

    it("a receive that fails is counted, and frames flow again", async () => {
      const { reflector, source } = await ends({ FAKE_FAIL_RECEIVE: "100" });
      await goesOn(reflector, ({ stats }) => (stats as Stats).received);
      expect((await source.end("SIGTERM")).status).toBe(0);
      const { status } = await reflector.end("SIGTERM");
      expect(status).toBe(0);
      expect(warnings(reflector).join()).toMatch(
        /verbs:fake0: a queue pair was set up again after an error: .*Other\(4\)|error state/,
      );
      const { stats } = reflector.events.at(-1) as unknown as { stats: Stats };
      expect(stats.deviceError).toBeGreaterThanOrEqual(1);
      expect(stats.received).toBeGreaterThan(500);
    });

    it("a send that fails is counted, and frames flow again", async () => {
      const { reflector, source } = await ends({}, { FAKE_FAIL_SEND: "100" });
      await goesOn(source, ({ ports }) => (ports as { stats: Stats }[])[1]!.stats.received);
      expect((await source.end("SIGTERM")).status).toBe(0);
      await reflector.end("SIGTERM");
      expect(warnings(source).join()).toMatch(/verbs:fake1: a queue pair was set up again/);
      const { ports } = source.events.at(-1) as unknown as { ports: { stats: Stats }[] };
      expect(ports[1]!.stats.deviceError).toBeGreaterThanOrEqual(1);
      expect(ports[1]!.stats.received).toBeGreaterThan(500);
    });

    it("a device that is taken away ends the port with a code", async () => {
      const { reflector } = await ends({ FAKE_FATAL: "100" });
      const { status, stderr } = await reflector.ended;
      expect(status).toBe(1);
      expect(stderr).toMatch(/"code":"E_DEVICE_FAILED"/);
      expect(stderr).toMatch(/IBV_EVENT_DEVICE_FATAL/);
    });

    it("what happens to the device is heard while no frame comes", async () => {
      const words = ["open", "verbs:fake0,server=127.0.0.1:0"];
      // IBV_EVENT_CQ_ERR, IBV_EVENT_PORT_ERR.
      const overrun = await command(words, { FAKE_EVENT: "0" }).ended;
      expect(overrun.stderr).toMatch(/"code":"E_DEVICE_FAILED"/);
      expect(overrun.stderr).toMatch(/a completion queue overran/);
      const down = command(words, { FAKE_EVENT: "10" });
      expect(await down.event("warning")).toMatchObject({ text: "verbs:fake0: its port is down" });
      expect((await down.end("SIGTERM")).status).toBe(0);
    });

    it.each([
      ["verbs:fake0,server=127.0.0.1:0", { FAKE_NO_MEMORY: "1" }, "E_NO_MEMORY", /RLIMIT_MEMLOCK/],
      ["verbs:fake7,server=127.0.0.1:0", {}, "E_NO_RDMA_DEVICE", /there=fake0,fake1/],
      ["verbs:fake0,port=2,server=127.0.0.1:0", {}, "E_NO_RDMA_DEVICE", /port=2/],
      ["verbs:fake0,gid=3,server=127.0.0.1:0", {}, "E_QP_REFUSED", /no address/],
      ["verbs:fake0,peer=127.0.0.1:1", {}, "E_SOCKET_MISSING", /ECONNREFUSED/],
    ])("%s with %j is %s", async (spec, faults, code, why) => {
      const { stderr } = await command(["open", spec], faults).ended;
      expect(stderr).toContain(`"code":"${code}"`);
      expect(stderr).toMatch(why);
    });

    it("refuses raw packets where the device has none", async () => {
      const { status, stderr } = await command(["open", "verbs:fake0", "--flow", "udp"]).ended;
      expect(status).toBe(77);
      expect(stderr).toContain('"code":"E_QP_REFUSED"');
    });

    it.each([1, 4])("raw packets come by flow rules, to %i queue(s), and go out", async (queues) => {
      // The wire: what is sent to one UDP port arrives on fake0, what that sends comes to the next.
      const out = createSocket("udp4");
      await new Promise<void>((resolve) => out.bind(WIRE + 1, "127.0.0.1", resolve));
      const words = [
        "open",
        `verbs:fake0,queues=${queues}`,
        "--flow",
        "ip and udp dst port 53",
        "--do",
        "reflect",
      ];
      const port = command(words, { FAKE_WIRE: `${WIRE}` });
      const { path: way } = (await port.event("open")) as unknown as {
        path: { steering: string; notes: string[] };
      };
      expect(way.steering).toBe("flow-rules");
      expect(way.notes.join()).toContain("have not been run on hardware");
      const seen = new Set<string>();
      out.on("message", (packet) => seen.add(packet.subarray(8).toString("hex")));
      const [to, from] = [Buffer.alloc(6, 2), Buffer.alloc(6, 4)];
      const wanted = Array.from({ length: 40 }, (_, at) => Buffer.alloc(60, at));
      for (const rest of wanted) {
        out.send(Buffer.concat([Buffer.alloc(8), to, from, rest]), WIRE, "127.0.0.1");
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      const swapped = wanted.map((rest) => Buffer.concat([from, to, rest]).toString("hex"));
      const deadline = Date.now() + 100_000;
      while (seen.size < wanted.length && Date.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 20));
      out.close();
      expect([...seen].sort()).toEqual(swapped.sort());
      const { status } = await port.end("SIGTERM");
      expect(status).toBe(0);
      const { stats } = port.events.at(-1) as unknown as { stats: { queues: Stats[] } };
      expect(stats.queues.map(({ received }) => received)).toEqual(Array(queues).fill(40 / queues));
    });

    it("refuses a hash that the device cannot do", async () => {
      const words = ["open", "verbs:fake0,queues=2", "--flow", "ether proto 0x88b5"];
      const { stderr } = await command(words, { FAKE_WIRE: "1" }).ended;
      expect(stderr).toContain('"code":"E_QP_REFUSED"');
    });

    it("says that rdma-core is missing where what is there is no library", async () => {
      const folder = path.join(built, "broken");
      mkdirSync(folder);
      writeFileSync(path.join(folder, "libibverbs.so.1"), "no library");
      const words = ["open", "verbs:fake0,server=127.0.0.1:0"];
      const { status, stderr } = await command(words, { LD_LIBRARY_PATH: folder }).ended;
      expect(status).toBe(77);
      expect(stderr).toContain('"code":"E_NO_RDMA_CORE"');
    });
  },
);
