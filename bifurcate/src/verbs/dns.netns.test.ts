// The DNS example behind a port over verbs: a card's flow crosses as datagrams to another process, which answers it. The
// RDMA device is a fake library's (fake-ibverbs.c); the card, the split and the client are real.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { endAll, RunningSplit, startHere } from "@bifurcate/lab/harness";
import { run } from "@bifurcate/lab/tools";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { buildFake, cannotBuild } from "../testing/fake-ibverbs.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun() ?? cannotBuild;

interface Stats {
  readonly received: number;
  readonly sent: number;
  readonly invalidDescriptor: number;
  readonly deviceError: number;
}

describe.skipIf(reason !== null)(
  `DNS over datagrams${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let folder: string;
    let environment: NodeJS.ProcessEnv;

    beforeEach(() => {
      veth = new VethPair(1);
      folder = mkdtempSync(path.join(tmpdir(), "bifurcate-verbs-dns-"));
      environment = { BIFURCATE_STATE_DIR: path.join(folder, "state"), LD_LIBRARY_PATH: folder };
      buildFake(folder);
    });
    afterEach(async () => {
      await endAll();
      veth.remove();
      rmSync(folder, { recursive: true, force: true });
    });

    async function dig(name: string): Promise<string> {
      const query = ["+short", "+tries=30", "+time=2", `@${veth.address}`, name, "A"];
      const { stdout } = await run("ip", ["netns", "exec", veth.peerNetns, "dig", ...query]);
      // It tells each time that it asks again.
      return stdout.replace(/^;;.*\n/gm, "");
    }

    it("is answered at the other end, and the next one that comes serves it too", async () => {
      const meeting = `127.0.0.1:${20_000 + (process.pid % 12_000)}`;
      const spec = `verbs:fake0,server=${meeting}`;
      const dns = new RunningSplit(startHere([spec, "--do", "run=examples/dns.ts"], environment, "open"));
      await dns.event("open");
      const words = [veth.card, `verbs:fake1,peer=${meeting}`, "--flow", "udp dst port 53"];
      const start = (): RunningSplit =>
        new RunningSplit(startHere([...words, "--netns", veth.netns], environment, "forward"));
      const first = start();
      await first.event("forward");
      expect(await dig("v4only.bifurcate.test")).toBe("192.0.2.4\n");
      await first.end("SIGKILL");
      // Until it has noticed, it would turn another one away.
      await dns.event("warning", ({ text }) => String(text).includes("the other end is gone"));
      const second = start();
      await second.event("forward");
      expect(await dig("v4only.bifurcate.test")).toBe("192.0.2.4\n");
      expect((await dig("www.bifurcate.test")).split("\n").sort()).toEqual(["", "192.0.2.80", "192.0.2.81"]);
      expect((await second.end("SIGTERM")).status).toBe(0);
      expect((await dns.end("SIGTERM")).status).toBe(0);
      const told = dns.events.filter(({ event }) => event === "warning").map(({ text }) => String(text));
      expect(told.filter((text) => text.includes("the other end is there"))).toHaveLength(2);
      expect(told.filter((text) => text.includes("the other end is gone")).length).toBeGreaterThanOrEqual(1);
      const { stats } = dns.events.at(-1) as unknown as { stats: Stats };
      expect(stats.received).toBeGreaterThanOrEqual(3);
      expect(stats).toMatchObject({ sent: stats.received, invalidDescriptor: 0, deviceError: 0 });
    });
  },
);
