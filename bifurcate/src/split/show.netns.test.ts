// `tap: true`: tcpdump sees the split's frames on an interface beside the card, and the kernel's stack none of them.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { split, type Port, type SplitOptions } from "bifurcate";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

const tcpdump = ["/usr/bin/tcpdump", "/usr/sbin/tcpdump"].some((file) => existsSync(file));
const reason = cannotRun() ?? (tcpdump ? null : "needs tcpdump: apt-get install tcpdump");

describe.skipIf(reason !== null)(
  `a split that tcpdump can see${reason === null ? "" : ` (skipped: ${reason})`}`,
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

    /** Listens until `count` packets have come; resolves with the lines, once it listens. */
    async function listen(device: string, count: number): Promise<{ readonly lines: Promise<string[]> }> {
      const words = ["netns", "exec", veth.netns, "tcpdump", "-lnnti", device, "-c", `${count}`];
      const child = spawn("ip", words, { stdio: ["ignore", "pipe", "pipe"] });
      let out = "";
      child.stdout.on("data", (text) => (out += String(text)));
      const lines = new Promise<string[]>((resolve) =>
        child.once("close", () => resolve(out.trim().split("\n"))),
      );
      let said = "";
      await new Promise<void>((resolve) =>
        child.stderr.on("data", (text) => {
          said += String(text);
          if (said.includes("listening on")) resolve();
        }),
      );
      return { lines };
    }

    const ways: [string, Partial<SplitOptions>][] = [
      ["driver mode", { mode: "driver", backend: "af_xdp" }],
      ["packet sockets", { backend: "af_packet" }],
    ];

    it.each(ways)("in both directions, and it is gone with the split: %s", async (_, way) => {
      // A socket of the kernel's that the shown frames would reach if the stack had them: they are broadcasts.
      const heard = veth.node(
        veth.netns,
        `const socket = require("node:dgram").createSocket("udp4"), texts = [];
         const end = () => { console.log(texts.length); process.exit(0); };
         socket.on("message", (text, from) => {
           if (String(text) === "end") socket.send("heard", from.port, from.address, end);
           else texts.push(text);
         });
         socket.bind(7777);`,
      );
      const state = path.join(folder, "state");
      const flow = {
        flows: ["udp dst port 7777 and not host 10.91.0.1"],
        netns: veth.netns,
        stateDirectory: state,
      };
      port = await split(veth.card, { ...flow, tap: true, ...way });
      const run = port.run((batch) => {
        while (batch.next()) {
          // Answered as another flow, so that the two directions can be told apart.
          batch.view.setUint16(batch.at + 36, 7779);
          batch.send();
        }
      });
      const [link] = JSON.parse(ip("-n", veth.netns, "-j", "link", "show", "dev", veth.card)) as [
        { ifindex: number },
      ];
      const name = `bftap${link.ifindex}`;
      expect(port.path.obtained.tap).toBe(name);
      const { lines } = await listen(name, 4);
      await veth.node(
        veth.peerNetns,
        `const socket = require("node:dgram").createSocket("udp4");
         socket.bind(0, () => { socket.setBroadcast(true);
           socket.send("one", 7777, "10.91.0.255", () => socket.send("three", 7777, "10.91.0.255", () => {
             setInterval(() => socket.send("end", 7777, "${veth.address}"), 500); })); });
         // Again until it is heard: who listens may still be starting.
         socket.on("message", (text) => { if (String(text) === "heard") process.exit(0); });`,
      );
      const seen = (await lines).map((line) => /> (\S+): UDP, length (\d+)/.exec(line)?.slice(1).join(" "));
      expect(seen.sort()).toEqual([
        "10.91.0.255.7777 3",
        "10.91.0.255.7777 5",
        "10.91.0.255.7779 3",
        "10.91.0.255.7779 5",
      ]);
      expect(await heard).toBe("0\n");
      const counted = { received: 2, sent: 2, tapLost: 0 };
      await vi.waitFor(() => expect(port!.stats).toMatchObject(counted), 60_000);
      await port.close();
      await run;
      expect(ip("-n", veth.netns, "-j", "link", "show")).not.toContain(name);
    });

    it("counts what it could not show", async () => {
      const state = path.join(folder, "state");
      const flow = { flows: ["udp dst port 7777"], netns: veth.netns, stateDirectory: state };
      port = await split(veth.card, { ...flow, tap: true });
      const run = port.runNative("drop");
      ip("-n", veth.netns, "link", "set", port.path.obtained.tap!, "down");
      await veth.tell(7777, 1);
      const counted = { received: 1, dropped: 1, tapLost: 1 };
      await vi.waitFor(() => expect(port!.stats).toMatchObject(counted), 60_000);
      await port.close();
      await run;
    });
  },
);
