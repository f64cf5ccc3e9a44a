// What a card and its kernel give a split of it: whole jumbo frames, busy polling, time to confirm.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { split, type Batch, type BifurcateError, type Port, type SplitOptions } from "bifurcate";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

/** Swaps MAC and IP addresses and UDP ports, which leaves every checksum right. */
function echo(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    const { at } = batch;
    for (const [a, b, words] of [
      [0, 6, 3],
      [26, 30, 2],
      [34, 36, 1],
    ] as const) {
      for (let i = 0; i < words; i++) {
        const word = view.getUint16(at + a + 2 * i);
        view.setUint16(at + a + 2 * i, view.getUint16(at + b + 2 * i));
        view.setUint16(at + b + 2 * i, word);
      }
    }
    batch.send();
  }
}

const reason = cannotRun();

describe.skipIf(reason !== null)(
  `a split of a veth card gives${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let folder: string;
    let state: string;
    let port: Port | undefined;

    beforeEach(() => {
      veth = new VethPair();
      folder = mkdtempSync(path.join(tmpdir(), "bifurcate-test-"));
      state = path.join(folder, "state");
    });
    afterEach(async () => {
      await port?.close().catch(() => undefined);
      port = undefined;
      veth.remove();
      rmSync(folder, { recursive: true, force: true });
    });

    async function open(options: Partial<SplitOptions>): Promise<Port> {
      const flow = { flows: ["udp dst port 7777"], netns: veth.netns, stateDirectory: state };
      port = await split(veth.card, { ...flow, ...options });
      return port;
    }

    const ways: [string, Partial<SplitOptions>][] = [
      ["driver mode", { backend: "af_xdp", mode: "driver" }],
      ["packet sockets", { backend: "af_packet" }],
    ];

    it.each(ways)("packets of 9,000 bytes whole, and sends them whole: %s", async (_, way) => {
      ip("-n", veth.netns, "link", "set", veth.card, "mtu", "9000");
      ip("-n", veth.peerNetns, "link", "set", veth.peer, "mtu", "9000");
      const port = await open(way);
      expect(port.path).toMatchObject({ backend: way.backend, obtained: { multiBuffer: true } });
      const sizes: number[] = [];
      const ends: number[] = [];
      const run = port.run((batch) => {
        while (batch.next()) {
          sizes.push(batch.size);
          ends.push(batch.view.getUint8(batch.at + batch.size - 1));
        }
        batch.begin(batch.count);
        echo(batch);
      });
      // 9,000 bytes of IP less its header and that of UDP.
      const back = await veth.node(
        veth.peerNetns,
        `const socket = require("node:dgram").createSocket("udp4"), answers = [];
         const sent = [8972, 5000, 100, 8972].map((length, n) => Buffer.alloc(length, n + 1));
         socket.on("message", (answer) => {
           answers.push(answer.equals(sent[answers.length]));
           if (answers.length === sent.length) { console.log(answers.join()); process.exit(0); }
           socket.send(sent[answers.length], 7777, "${veth.address}");
         });
         socket.send(sent[0], 7777, "${veth.address}");
         setTimeout(() => { console.log(answers.join()); process.exit(0); }, 100000);`,
      );
      expect(back).toBe("true,true,true,true\n");
      expect(sizes).toEqual([9014, 5042, 142, 9014]);
      expect(ends).toEqual([1, 2, 3, 4]);
      const counted = { received: 4, sent: 4, tooLong: 0, noFrames: 0 };
      await vi.waitFor(() => expect(port.stats).toMatchObject(counted), 60_000);
      await port.close();
      await run;
    });

    it("busy polling where it is asked for", async () => {
      const port = await open({ busyPoll: true, backend: "af_xdp" });
      expect(port.path.obtained.busyPoll).toBe(true);
      const run = port.run(echo);
      expect(await veth.ask(7777, 20)).toEqual({ sent: 20, answered: 20 });
      await port.close();
      await run;
    });

    it("one capture file of all that came, also when the card was split anew meanwhile", async () => {
      const channels = (count: string): string =>
        ip("netns", "exec", veth.netns, "ethtool", "-L", veth.card, "rx", count, "tx", count);
      channels("1");
      const file = path.join(folder, "flow.pcapng");
      const port = await open({ tap: file });
      const run = port.run(echo);
      expect((await veth.ask(7777, 1)).answered).toBe(1);
      channels("2");
      await vi.waitFor(() => expect(port.path.queues).toHaveLength(2), 60_000);
      expect((await veth.ask(7777, 2)).answered).toBe(2);
      await port.close();
      await run;
      const capture = readFileSync(file, "latin1");
      // Each datagram in both directions, twice "question 0".
      expect(capture.match(/question \d/g)).toHaveLength(6);
    });

    it("its flow back to the kernel, and its port an end, when it is not confirmed in time", async () => {
      await veth.serve(7777);
      const before = veth.settings();
      const port = await open({ confirmSeconds: 30 });
      const ended = port.run(() => undefined).catch((thrown: unknown) => (thrown as BifurcateError).code);
      expect(await veth.tell(7777, 1)).toBe(0);
      expect(await ended).toBe("E_NOT_CONFIRMED");
      await port.close();
      expect(port.closed).toBe(true);
      expect(veth.settings()).toBe(before);
      expect(await veth.ask(7777, 3)).toEqual({ sent: 3, answered: 3 });
      expect(readdirSync(state)).toEqual([]);
      const late = await port
        .run(() => undefined)
        .catch((thrown: unknown) => (thrown as BifurcateError).code);
      expect(late).toBe("E_CLOSED");
    });

    it("the same port beyond that time once it was confirmed", async () => {
      const port = await open({ confirmSeconds: 30 });
      const run = port.run(echo);
      port.confirm();
      await new Promise((resolve) => setTimeout(resolve, 31_500));
      expect(port.closed).toBe(false);
      expect(await veth.ask(7777, 3)).toEqual({ sent: 3, answered: 3 });
      await port.close();
      await run;
    });
  },
);
