// A card that changes under a running split: its flow goes to the kernel meanwhile, and the split repairs itself.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { split, type Batch, type BifurcateError, type Port, type SplitOptions } from "bifurcate";
import { ECHO, echo } from "../testing/echo.js";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

const reason = cannotRun();

describe.skipIf(reason !== null)(
  `a card that changes under a split${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let folder: string;
    let port: Port | undefined;
    let warnings: string[];

    beforeEach(() => {
      veth = new VethPair(4);
      folder = mkdtempSync(path.join(tmpdir(), "bifurcate-test-"));
      warnings = [];
    });
    afterEach(async () => {
      await port?.close().catch(() => undefined);
      port = undefined;
      veth.remove();
      rmSync(folder, { recursive: true, force: true });
    });

    async function open(options: Partial<SplitOptions> = {}): Promise<Port> {
      port = await split(veth.card, {
        flows: ["udp dst port 7777"],
        netns: veth.netns,
        stateDirectory: path.join(folder, "state"),
        onWarning: (text) => warnings.push(text),
        ...options,
      });
      return port;
    }

    function echoFile(): { file: string } {
      const file = path.join(folder, "echo.ts");
      writeFileSync(file, ECHO);
      return { file };
    }

    function channels(queues: number): { status: number | null; stderr: string } {
      const card = spawnSync("ip", inside(veth.netns, veth.card, queues), { encoding: "utf8" });
      spawnSync("ip", inside(veth.peerNetns, veth.peer, queues));
      return card;
    }

    function inside(netns: string, ifname: string, queues: number): string[] {
      return ["netns", "exec", netns, "ethtool", "-L", ifname, "rx", `${queues}`, "tx", `${queues}`];
    }

    async function errorOf(promise: Promise<unknown>): Promise<BifurcateError> {
      return promise.then(
        () => Promise.reject(new Error("it did not fail")),
        (thrown: unknown) => thrown as BifurcateError,
      );
    }

    /** Asks from several sockets at once, so that questions come by every queue. */
    async function askAll(count: number): Promise<number> {
      const answers = await Promise.all([1, 2, 3, 4, 5, 6].map(() => veth.ask(7777, count)));
      return answers.reduce((sum, { answered }) => sum + answered, 0);
    }

    const runs: [string, (port: Port) => Promise<void>][] = [
      ["a handler file", (port) => port.run(echoFile())],
      ["a function", (port) => port.run(echo)],
      [
        "for await",
        async (port) => {
          for await (const batch of port) echo(batch);
        },
      ],
    ];

    it.each(runs)("ethtool -L with more queues: they are the split's too, for %s", async (_, run) => {
      expect(channels(2).status).toBe(0);
      await veth.serve(7777);
      const before = veth.settings();
      const port = await open();
      expect(port.path.queues).toEqual([0, 1]);
      const { id } = port;
      const running = run(port);
      expect(await veth.ask(7777, 5)).toEqual({ sent: 5, answered: 5 });
      // Whoever has the flow, split or kernel, answers: not one question may be lost.
      const through = veth.ask(7777, 20_000);
      const kernel = veth.askTcp(7777, 20_000);
      expect(channels(4).status).toBe(0);
      await vi.waitFor(() => expect(port.path.queues).toEqual([0, 1, 2, 3]), 60_000);
      expect(port.id).toBe(id);
      expect(warnings.at(-1)).toMatch(/4 queues now: split anew, on queues 0, 1, 2, 3$/);
      const { received } = port.stats;
      expect(received).toBeGreaterThanOrEqual(5);
      expect(await askAll(20)).toBe(120);
      await vi.waitFor(() => expect(port.stats.received).toBeGreaterThanOrEqual(received + 120), 60_000);
      expect(port.stats.queues).toHaveLength(4);
      expect(await through).toEqual({ sent: 20_000, answered: 20_000 });
      expect(await kernel).toEqual({ sent: 20_000, answered: 20_000 });

      // Fewer would leave sockets without a queue: the kernel refuses that, and the split goes on.
      const fewer = channels(2);
      expect([fewer.status, fewer.stderr]).toEqual([1, expect.stringContaining("AF_XDP sockets")]);
      expect(await askAll(2)).toBe(12);
      await port.close();
      await running;
      expect(channels(2).status).toBe(0);
      expect(veth.settings()).toBe(before);
      expect(readdirSync(path.join(folder, "state"))).toEqual([]);
    });

    it("an MTU that needs long frames: the pool is made anew with some", async () => {
      const port = await open();
      const running = port.run(echoFile());
      ip("-n", veth.netns, "link", "set", veth.card, "mtu", "9000");
      await vi.waitFor(() => expect(warnings.at(-1)).toMatch(/MTU of card0 is now 9000.*split anew/), 60_000);
      ip("-n", veth.peerNetns, "link", "set", veth.peer, "mtu", "9000");
      const answer = veth.node(
        veth.peerNetns,
        `const socket = require("node:dgram").createSocket("udp4");
         socket.on("message", (text) => { console.log(text.length); process.exit(0); });
         socket.send(Buffer.alloc(8000), 7777, "${veth.address}");
         setTimeout(() => process.exit(0), 100000);`,
      );
      expect((await answer).trim()).toBe("8000");
      expect(port.stats.tooLong).toBe(0);
      await port.close();
      await running;
    });

    const ways: [string, Partial<SplitOptions>][] = [
      ["AF_XDP", { backend: "af_xdp" }],
      ["AF_PACKET", { backend: "af_packet" }],
    ];

    it.each(ways)(
      "a card moved away is let go at once, before anybody closes the port: %s",
      async (_, way) => {
        const port = await open(way);
        const running = errorOf(port.run(echoFile()));
        ip("-n", veth.netns, "link", "set", veth.card, "netns", veth.peerNetns);
        const error = await running;
        expect([error.code, error.why]).toEqual(["E_INTERFACE_GONE", expect.stringContaining("moved")]);
        expect(ip("-n", veth.peerNetns, "-d", "link", "show", veth.card)).not.toContain("xdp");
        const filters = ["netns", "exec", veth.peerNetns, "bpftool", "net", "show", "dev", veth.card];
        const shown = spawnSync("ip", filters, { encoding: "utf8" });
        if (shown.status === 0) expect(shown.stdout).not.toMatch(/prog_id|\bid \d/);
        await port.close();
        expect(readdirSync(path.join(folder, "state"))).toEqual([]);
      },
    );

    it("where it cannot be split anew, the run ends and says why, and the kernel has the flow", async () => {
      channels(2);
      await veth.serve(7777);
      const port = await open();
      const running = errorOf(port.run((batch: Batch) => void batch.count));
      // The namespace lives on in its processes, but has no name any more.
      const child = Number(
        execFileSync("ip", ["netns", "pids", veth.netns], { encoding: "utf8" }).split("\n")[0],
      );
      const there = ["--target", `${child}`, "--net", "ethtool", "-L", veth.card, "rx", "4", "tx", "4"];
      ip("netns", "delete", veth.netns);
      execFileSync("nsenter", there);
      const error = await running;
      expect(error.code).toBe("E_CHANGED_UNDERNEATH");
      expect(error.why).toMatch(/4 queues now, and it cannot be split anew: .*E_NO_SUCH_NETNS/);
      expect(await veth.ask(7777, 3)).toEqual({ sent: 3, answered: 3 });
      await port.close();
    });
  },
);
