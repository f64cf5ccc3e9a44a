// Frame memory that vanishes under a handler in JavaScript: the port fails with a coded error, the process and its other
// ports go on. Needs root, for huge pages: ordinary pages come back as zeros by themselves.

import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { buildSync } from "esbuild";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { open, type Port } from "bifurcate";
import { swap } from "../testing/frames.js";
import { addPages, freePages, providePages, reservedPages } from "../testing/huge-pages.js";
import type { Seen } from "../testing/vanish-handler.js";
import type { Vanished } from "../testing/vanish.js";

/** Of 2 MiB: the pool of 1,024 frames has two, and the kernel may want one more for its own. */
const PAGES = 3;

const source = (file: string): string => fileURLToPath(new URL(file, import.meta.url));
const built = mkdtempSync(path.join(tmpdir(), "bifurcate-vanish-"));
const api = source("../../dist/index.js");
const bundle = (from: string, to: string): void =>
  void buildSync({
    entryPoints: [source(from)],
    outfile: to,
    bundle: true,
    format: "esm",
    platform: "node",
    alias: { bifurcate: api },
    external: [api],
  });
const [PEER, PROCESS, HANDLER] = ["peer", "vanish", "handler"].map((name) =>
  path.join(built, `${name}.mjs`),
) as [string, string, string];

const root = process.getuid?.() === 0;

describe.skipIf(!root)(
  `memory that vanishes${root ? "" : " (skipped: needs root to reserve huge pages)"}`,
  () => {
    let folder: string;
    let before: number;
    const ports: Port[] = [];
    const children: ChildProcess[] = [];

    beforeAll(() => {
      bundle("../testing/peer.ts", PEER);
      bundle("../testing/vanish.ts", PROCESS);
      bundle("../testing/vanish-handler.ts", HANDLER);
    });
    afterAll(() => rmSync(built, { recursive: true, force: true }));
    beforeEach(async ({ skip }) => {
      folder = mkdtempSync(path.join(tmpdir(), "bifurcate-vanish-"));
      before = reservedPages();
      skip(
        !(await providePages(() => PAGES - freePages())),
        `the kernel has no memory for ${PAGES} huge pages`,
      );
    });
    afterEach(async () => {
      for (const child of children.splice(0)) child.kill("SIGKILL");
      for (const port of ports.splice(0)) await port.close().catch(() => undefined);
      addPages(before - reservedPages());
      rmSync(folder, { recursive: true, force: true });
    });

    it.each([
      ["this thread", ""],
      ["a worker", HANDLER],
    ])("under a handler in %s: zeros, the port's end, and nothing else", async (_, file) => {
      const [socket, elsewhere, seen] = ["s", "t", "seen"].map((name) => path.join(folder, name)) as [
        string,
        string,
        string,
      ];
      const device = fork(PEER, [`vhost-user:${socket},server`]);
      children.push(device);
      await once(device, "message");
      device.send({ swap: true });
      await once(device, "message");
      const other = await open(`vhost-user:${elsewhere},server`);
      ports.push(other);
      const running = other.run(swap);
      const child = fork(PROCESS, [`virtio-user:${socket}`, `virtio-user:${elsewhere}`, file], {
        env: { ...process.env, VANISH_SEEN: seen },
      });
      children.push(child);
      const ended = once(child, "exit").then(([status, signal]) => {
        throw new Error(`the process ended with ${String(signal ?? status)}`);
      });
      const [vanished] = (await Promise.race([once(child, "message"), ended])) as [Vanished];
      expect(vanished).toEqual({
        pages: "huge",
        code: "E_DEVICE_FAILED",
        other: { sent: 500, returned: 500 },
      });
      // 60 bytes of 1, two MAC addresses among them, which swapping leaves as they are.
      expect(JSON.parse(readFileSync(seen, "utf8")) as Seen).toEqual({ before: 60, after: 0 });
      // The device's process has the same memory, and lives as well.
      expect([device.exitCode, device.signalCode]).toEqual([null, null]);
      await other.close();
      await running;
    });
  },
);
