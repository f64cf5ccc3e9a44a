// `bifurcate lab guest` as it is typed: a shell on a terminal, with an IOMMU of virtio.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { BOOT_LIMIT, endSharedGuest } from "./shared.js";
import { Terminal } from "./testing/terminal.js";

const WAIT = BOOT_LIMIT / 2;

describe("a shell in the guest", () => {
  test(
    "is on a terminal of our size, behind the IOMMU of virtio; Ctrl-C is the shell's, and its status is ours",
    async () => {
      await endSharedGuest();
      const terminal = new Terminal(["lab", "guest", "--nics", "e1000e", "--iommu", "virtio"]);
      await terminal.shows(/exit or Ctrl-\] ends it[\s\S]*# $/, WAIT);
      terminal.type("tty; stty size; readlink /sys/class/net/nic0/device/iommu; ls /sys/class/iommu\n");
      await terminal.shows(/\/dev\/pts\/\d+\s+30 100\s+\S*virtio\d+\/iommu\/(\S+)\s+\1\s/, WAIT);
      // Typed in two halves, so that only the command's output is `started`, not the echo of what was typed.
      terminal.type("echo st''arted; sleep 1000\n");
      await terminal.shows(/started\s+$/, WAIT);
      terminal.type("\x03");
      await terminal.shows(/\^C[\s\S]*# $/, WAIT);
      terminal.type("exit 3\n");
      expect(await terminal.ended).toBe(3);
    },
    BOOT_LIMIT,
  );

  test(
    "ends by Ctrl-], whatever runs in it",
    async () => {
      await endSharedGuest();
      const terminal = new Terminal(["lab", "guest", "--iommu", "none"]);
      await terminal.shows(/# $/, WAIT);
      terminal.type("sleep 1000\n");
      terminal.type("\x1d");
      expect(await terminal.ended).toBe(128 + 15);
    },
    BOOT_LIMIT,
  );

  test(
    "ends by SIGHUP when its terminal is closed, with its guest",
    async () => {
      await endSharedGuest();
      const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-hang-up-"));
      onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
      vi.stubEnv("TMPDIR", folder);
      onTestFinished(() => void vi.unstubAllEnvs());
      const terminal = new Terminal(["lab", "guest", "--iommu", "none"]);
      await terminal.shows(/# $/, WAIT);
      terminal.hangUp();
      expect(await terminal.ended).toBe("SIGHUP");
      expect(readdirSync(folder)).toEqual([]);
    },
    BOOT_LIMIT,
  );
});
