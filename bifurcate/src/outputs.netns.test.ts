// TypeScript between two veth cards: a bridge both ways through `outputs`, over which a client finds a server.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { endAll, RunningSplit } from "@bifurcate/lab/harness";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openSender, split, type Port, type SplitOptions } from "bifurcate";
import { cannotRun, ip, VethPair } from "./testing/veth.js";

/** What is carried: a flow, and the ARP without which its ends do not find each other. */
const FLOW = "udp port 7777 or arp";
const BRIDGE = `
  export function handle(batch) {
    while (batch.next()) batch.send(batch.size, 1);
  }`;
const FORWARDER = new URL("../../examples/forwarder.ts", import.meta.url);

const reason = cannotRun();

describe.skipIf(reason !== null)(
  `outputs on veth cards${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let folder: string;
    const ports: Port[] = [];

    beforeEach(() => {
      veth = new VethPair();
      folder = mkdtempSync(path.join(tmpdir(), "bifurcate-test-"));
    });
    afterEach(async () => {
      for (const port of ports.splice(0)) await port.close().catch(() => undefined);
      veth.remove();
      rmSync(folder, { recursive: true, force: true });
    });

    async function open(card: string, options: Partial<SplitOptions> = {}): Promise<Port> {
      const stateDirectory = path.join(folder, "state");
      const port = await split(card, { flows: [FLOW], netns: veth.netns, stateDirectory, ...options });
      ports.push(port);
      return port;
    }

    function channels(count: number): void {
      ip("netns", "exec", veth.netns, "ethtool", "-L", veth.card, "rx", `${count}`, "tx", `${count}`);
    }

    function file(name: string, source: string): { file: string } {
      writeFileSync(path.join(folder, name), source);
      return { file: path.join(folder, name) };
    }

    const ways: [string, Partial<SplitOptions>][] = [
      ["AF_XDP", { backend: "af_xdp" }],
      ["packet sockets", { backend: "af_packet" }],
    ];

    it.each(ways)("a bridge of two handler files: %s", async (_, way) => {
      const far = veth.behind();
      await veth.serve(7777, far.netns);
      const [left, right] = [await open(veth.card, way), await open(far.card, way)];
      const bridge = file("bridge.ts", BRIDGE);
      const runs = [left.run(bridge, { outputs: [right] }), right.run(bridge, { outputs: [left] })];
      await veth.reach(7777, far.address);
      expect(await veth.ask(7777, 50, far.address)).toEqual({ sent: 50, answered: 50 });
      expect(left.stats.received).toBeGreaterThan(50);
      // When what either kernel asks of its neighbour is not on its way.
      await vi.waitFor(() => {
        expect(left.stats.sent).toBe(right.stats.received);
        expect(right.stats.sent).toBe(left.stats.received);
      }, 60_000);
      for (const port of [left, right]) await port.close();
      await Promise.all(runs);
    });

    it("the example's forwarder, out of a card that is only sent by", async () => {
      const far = veth.behind();
      const link = JSON.parse(ip("-n", far.netns, "-j", "link", "show", "dev", "peer1")) as [
        { address: string },
      ];
      const [high, low] = [/^(.{5})/, /(.{11})$/].map(
        (part) => `0x${part.exec(link[0].address)![1]!.replaceAll(":", "")}`,
      );
      // The server takes the datagrams, since it has the address that the client asks; it answers nothing.
      ip("-n", far.netns, "address", "add", `${veth.address}/32`, "dev", "lo");
      const received = veth.node(
        far.netns,
        `const socket = require("node:dgram").createSocket("udp4"), texts = [];
         socket.on("message", (text) => { texts.push(String(text));
           if (texts.length === 3) { console.log(texts.join()); process.exit(0); } });
         socket.bind(7777, "${veth.address}");
         setTimeout(() => process.exit(1), 100000);`,
      );
      const handler = file(
        "forwarder.ts",
        `import { forward } from ${JSON.stringify(fileURLToPath(FORWARDER))};
         export function handle(batch) {
           while (batch.next()) {
             if (forward(batch.view, batch.at, batch.size, [[${high}, ${low}]])) batch.send(batch.size, 1);
             else batch.pass();
           }
         }`,
      );
      const port = await open(veth.card, { flows: ["udp dst port 7777"] });
      const to = await openSender(far.card, { netns: veth.netns });
      ports.push(to);
      const run = port.run(handler, { outputs: [to] });
      const asked = veth.tell(7777, 3);
      expect(await received).toBe("question 0,question 1,question 2\n");
      await asked;
      await vi.waitFor(() => expect(to.stats.sent).toBe(3), 60_000);
      expect(port.stats.sent).toBe(0);
      await port.close();
      await run;
    });

    it("the command line's --output", async () => {
      const far = veth.behind();
      const source = "export function handle(batch) { while (batch.next()) batch.send(batch.size, 1); }";
      const handler = file("out.ts", source);
      process.env["BIFURCATE_STATE_DIR"] = path.join(folder, "state");
      const words = [veth.card, "--netns", veth.netns, "--flow", "udp dst port 7777"];
      const command = new RunningSplit([...words, "--do", `run=${handler.file}`, "--output", far.card]);
      try {
        await command.event("split");
        await veth.tell(7777, 1);
        const stats = expect.objectContaining({ received: 1, sent: 1 }) as object;
        await vi.waitFor(
          () => expect(command.events.at(-1)).toMatchObject({ event: "rates", stats }),
          60_000,
        );
        expect(await command.end("SIGINT")).toMatchObject({ status: 0, stderr: "" });
        expect(await command.event("end")).toMatchObject({
          stats: { received: 1, sent: 1, handlerInvalid: 0 },
        });
      } finally {
        delete process.env["BIFURCATE_STATE_DIR"];
        await endAll();
      }
    });

    it("a run goes on when an output was split anew", async () => {
      const far = veth.behind();
      await veth.serve(7777, far.netns);
      channels(1);
      const [left, right] = [await open(far.card), await open(veth.card)];
      const bridge = file("bridge.ts", BRIDGE);
      const runs = [left.run(bridge, { outputs: [right] }), right.run(bridge, { outputs: [left] })];
      await veth.reach(7777, far.address);
      expect((await veth.ask(7777, 3, far.address)).answered).toBe(3);
      // More queues: the split's sockets stand on too few, and are opened anew.
      channels(2);
      await vi.waitFor(() => expect(right.path.queues).toEqual([0, 1]), 60_000);
      expect((await veth.ask(7777, 3, far.address)).answered).toBe(3);
      for (const port of [left, right]) await port.close();
      await Promise.all(runs);
    });
  },
);
