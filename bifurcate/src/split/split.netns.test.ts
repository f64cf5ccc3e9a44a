// A split of a real veth card: its flow in TypeScript, everything else in the kernel, and the card as it was after.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openSender, split, type Batch, type BifurcateError, type Port, type SplitOptions } from "bifurcate";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

const FLOW = "udp dst port 7777";
/** Answers a UDP datagram over IPv4: addresses and ports swapped, which leaves every checksum right. */
const ECHO = `
  import type { Batch } from "bifurcate";
  export function handle(batch: Batch): void {
    const { view } = batch;
    while (batch.next()) {
      const at = batch.at;
      if (batch.size < 42 || view.getUint16(at + 12) !== 0x0800 || view.getUint8(at + 14) !== 0x45) continue;
      for (const [a, b, words] of [[0, 6, 3], [26, 30, 2], [34, 36, 1]] as const) {
        for (let i = 0; i < words; i++) {
          const word = view.getUint16(at + a + 2 * i);
          view.setUint16(at + a + 2 * i, view.getUint16(at + b + 2 * i));
          view.setUint16(at + b + 2 * i, word);
        }
      }
      view.setUint16(at + 40, 0);
      batch.send();
    }
  }`;

const reason = cannotRun();

describe.skipIf(reason !== null)(
  `a split of a veth card${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let folder: string;
    let port: Port | undefined;

    beforeEach(() => {
      veth = new VethPair();
      folder = mkdtempSync(path.join(tmpdir(), "bifurcate-test-"));
    });
    afterEach(async () => {
      await port?.close().catch(() => undefined);
      port = undefined;
      veth.remove();
      rmSync(folder, { recursive: true, force: true });
    });

    async function open(options: Partial<SplitOptions> = {}): Promise<Port> {
      port = await split(veth.card, {
        flows: [FLOW],
        netns: veth.netns,
        stateDirectory: path.join(folder, "state"),
        ...options,
      });
      return port;
    }

    function echoFile(): { file: string } {
      const file = path.join(folder, "echo.ts");
      writeFileSync(file, ECHO);
      return { file };
    }

    async function errorOf(promise: Promise<unknown>): Promise<BifurcateError> {
      return promise.then(
        () => Promise.reject(new Error("it did not fail")),
        (thrown: unknown) => thrown as BifurcateError,
      );
    }

    const ways: [string, Partial<SplitOptions>][] = [
      ["driver mode", { mode: "driver", backend: "af_xdp" }],
      ["generic mode", { mode: "generic", backend: "af_xdp" }],
      ["packet sockets", { backend: "af_packet" }],
    ];

    it.each(ways)(
      "answers its flow from a handler file, the kernel the rest, and leaves no trace: %s",
      async (_, way) => {
        await veth.serve(7778);
        const before = veth.settings();
        const port = await open(way);
        if (way.mode !== undefined)
          expect(port.path).toMatchObject({ backend: "af_xdp", xdp: way.mode, mode: "copy" });
        else expect(port.path).toMatchObject({ backend: "af_packet", xdp: null, mode: "copy" });
        const run = port.run(echoFile());
        const [user, udp, tcp] = await Promise.all([
          veth.ask(7777, 50),
          veth.ask(7778, 50),
          veth.askTcp(7778, 50),
        ]);
        expect(user).toEqual({ sent: 50, answered: 50 });
        expect(udp).toEqual({ sent: 50, answered: 50 });
        expect(tcp).toEqual({ sent: 50, answered: 50 });
        await vi.waitFor(() => expect(port.stats).toMatchObject({ received: 50, sent: 50 }), 60_000);
        await port.close();
        await run;
        expect(veth.settings()).toBe(before);
        await veth.serve(7777);
        expect(await veth.ask(7777, 5)).toEqual({ sent: 5, answered: 5 });
      },
    );

    it("answers on every queue of a card that has fewer queues to send by", async () => {
      execFileSync("ip", ["netns", "exec", veth.netns, "ethtool", "-L", veth.card, "tx", "1"]);
      const port = await open({ backend: "af_xdp" });
      const run = port.run(echoFile());
      for (let socket = 0; socket < 16; socket++) {
        expect(await veth.ask(7777, 2)).toEqual({ sent: 2, answered: 2 });
      }
      await vi.waitFor(() => expect(port.stats.queues.map((queue) => queue.sent)).toEqual([32, 0]), 60_000);
      // Each client's socket has a queue of its own, which is where its frames arrive.
      expect(port.stats.queues.map((queue) => queue.received > 0)).toEqual([true, true]);
      await port.close();
      await run;
    });

    it.each(ways)("gives passed frames to the kernel's own sockets: %s", async (_, way) => {
      await veth.serve(7777);
      const port = await open({ ...way, pass: true });
      let frames = 0;
      const run = port.run((batch: Batch) => {
        for (const frame of batch) {
          frames++;
          frame.pass();
        }
      });
      expect(await veth.ask(7777, 20)).toEqual({ sent: 20, answered: 20 });
      expect(frames).toBe(20);
      await vi.waitFor(() => expect(port.stats.passed).toBe(20), 60_000);
      await port.close();
      await run;
    });

    it.each(ways)("passes a TCP flow whose sender leaves segmentation to the card: %s", async (_, way) => {
      await veth.serve(7778);
      const port = await open({ ...way, flows: ["tcp dst port 7778"], pass: true });
      const run = port.run((batch: Batch) => {
        for (const frame of batch) frame.pass();
      });
      const bytes = 4_000_000;
      const client = `const socket = require("node:net").connect(7778, "${veth.address}");
        let back = 0;
        const end = () => { console.log(back); process.exit(0); };
        socket.on("data", (data) => { back += data.length; if (back === ${bytes}) end(); });
        socket.on("error", end);
        socket.write(Buffer.alloc(${bytes}, 7));
        setTimeout(end, 100_000);`;
      expect(Number(await veth.node(veth.peerNetns, client))).toBe(bytes);
      expect(port.stats.tooLong).toBe(0);
      await port.close();
      await run;
    });

    it("still gives passed frames to the kernel after the card changed its address", async () => {
      await veth.serve(7777);
      const port = await open({ pass: true });
      const run = port.run((batch: Batch) => {
        for (const frame of batch) frame.pass();
      });
      expect(await veth.ask(7777, 2)).toEqual({ sent: 2, answered: 2 });
      const address = "02:00:00:00:00:77";
      ip("-n", veth.netns, "link", "set", veth.card, "address", address);
      ip("-n", veth.peerNetns, "neigh", "flush", "all");
      await vi.waitFor(
        () => expect(ip("-n", veth.netns, "link", "show", "bfpass0")).toContain(address),
        60_000,
      );
      expect(await veth.ask(7777, 5)).toEqual({ sent: 5, answered: 5 });
      await port.close();
      await run;
    });

    it("drops in Rust, counts, and gives the flow back on close", async () => {
      await veth.serve(7777);
      const port = await open();
      const run = port.runNative("drop");
      expect(await veth.tell(7777, 1)).toBe(0);
      await vi.waitFor(() => expect(port.stats.dropped).toBe(1), 60_000);
      await port.close();
      await run;
      expect((await veth.ask(7777, 1)).answered).toBe(1);
    });

    it("forwards in Rust to another card, unchanged, and writes the flow to a file", async () => {
      ip("-n", veth.netns, "link", "add", "out0", "type", "veth", "peer", "name", "sink0");
      ip("-n", veth.netns, "link", "set", "out0", "up");
      ip("-n", veth.netns, "link", "set", "sink0", "up");
      const file = path.join(folder, "flow.pcapng");
      const port = await open({ tap: file });
      const to = await openSender("out0", { netns: veth.netns });
      const sink = await split("sink0", {
        flows: [FLOW],
        netns: veth.netns,
        backend: "af_packet",
        stateDirectory: path.join(folder, "state"),
      });
      const frames: string[] = [];
      const run = port.runNative("forward", { to });
      const sunk = sink.run((batch) => {
        for (const frame of batch) frames.push(Buffer.from(frame.bytes).toString("latin1"));
      });
      await veth.tell(7777, 2);
      await vi.waitFor(() => expect(frames).toHaveLength(2), 60_000);
      expect(frames.map((frame) => frame.slice(42))).toEqual(["question 0", "question 1"]);
      await vi.waitFor(() => expect(to.stats.sent).toBe(2), 60_000);
      await Promise.all([to.close(), sink.close(), run, sunk]);
      await port.close();
      const capture = readFileSync(file);
      expect(capture.readUInt32LE(0)).toBe(0x0a0d0d0a);
      expect(capture.includes("question 1")).toBe(true);
    });

    it("lets `for await` answer", async () => {
      const port = await open();
      let frames = 0;
      const client = veth.tell(7777, 3).finally(async () => {
        await vi.waitFor(() => expect(frames).toBe(3), 60_000).finally(() => void port.close());
      });
      for await (const batch of port) {
        frames += batch.count;
        for (const frame of batch) frame.drop();
      }
      expect(await client).toBe(0);
      expect(frames).toBe(3);
    });

    it("ends the run with a reason when the card is deleted, and still closes", async () => {
      const port = await open();
      const run = errorOf(port.run(echoFile()));
      expect((await veth.ask(7777, 1)).answered).toBe(1);
      ip("-n", veth.netns, "link", "delete", veth.card);
      expect((await run).code).toBe("E_INTERFACE_GONE");
      await port.close();
    });

    it("goes on after the card was down and up again", async () => {
      const warnings: string[] = [];
      const port = await open({ onWarning: (text) => warnings.push(text) });
      const run = port.run(echoFile());
      ip("-n", veth.netns, "link", "set", veth.card, "down");
      ip("-n", veth.netns, "link", "set", veth.card, "up");
      veth.settle();
      expect((await veth.ask(7777, 3)).answered).toBe(3);
      await port.close();
      await run;
    });

    it("refuses what cannot be, with its code, and changes nothing", async () => {
      const before = veth.settings();
      expect((await errorOf(open({ flows: ["udp dst prot 53"] }))).code).toBe("E_FLOW_SYNTAX");
      expect((await errorOf(open({ flows: [] }))).code).toBe("E_NO_FLOW");
      expect((await errorOf(open({ queues: [9] }))).code).toBe("E_NO_SUCH_QUEUE");
      expect((await errorOf(open({ zeroCopy: "require" }))).code).toBe("E_NO_ZERO_COPY");
      expect((await errorOf(open({ netns: "bf-none" }))).code).toBe("E_NO_SUCH_NETNS");
      const nowhere = split("nowhere0", { flows: [FLOW], netns: veth.netns });
      expect((await errorOf(nowhere)).code).toBe("E_NO_SUCH_INTERFACE");
      expect(veth.settings()).toBe(before);
    });

    it("is not opened at all when it cannot tell its warnings", async () => {
      const before = veth.settings();
      const onWarning = (): void => {
        throw new Error("mine");
      };
      const error = await errorOf(open({ onWarning }));
      expect([error.code, error.why]).toEqual(["E_HANDLER_THREW", "it threw: mine"]);
      expect(veth.settings()).toBe(before);
      await open();
    });

    it("names a second split on the same card", async () => {
      await open();
      const second = split(veth.card, {
        flows: [FLOW],
        netns: veth.netns,
        stateDirectory: path.join(folder, "state"),
      });
      expect((await errorOf(second)).code).toBe("E_FLOW_TAKEN");
    });

    it.each(["SIGINT", "SIGTERM"] as const)(
      "is closed by %s before the process ends by it",
      async (signal) => {
        const before = veth.settings();
        const script = `
      import { split } from ${JSON.stringify(import.meta.resolve("bifurcate"))};
      const port = await split("${veth.card}", { flows: ["${FLOW}"], netns: "${veth.netns}",
        stateDirectory: "${path.join(folder, "state")}" });
      console.log("split");
      await port.run(() => {});`;
        const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
          stdio: ["ignore", "pipe", "inherit"],
        });
        const ended = new Promise((resolve) => child.once("exit", (code, by) => resolve(by ?? code)));
        await new Promise((resolve) => child.stdout.once("data", resolve));
        expect(veth.settings()).not.toBe(before);
        child.kill(signal);
        expect(await ended).toBe(signal);
        expect(veth.settings()).toBe(before);
      },
    );
  },
);
