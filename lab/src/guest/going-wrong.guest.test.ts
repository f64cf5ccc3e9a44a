// How a guest ends when it goes wrong: a panic, a hang, Ctrl-C, a killed owner.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { cliPath } from "../harness.js";
import { Guest } from "./guest.js";
import { provision } from "./provision.js";
import { BOOT_LIMIT, completeMachine, endSharedGuest, sharedGuest } from "./shared.js";

describe("a guest that goes wrong", () => {
  it(
    "has Debian's Node where the disk with the host's cannot be used",
    async () => {
      const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-no-node-"));
      onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
      const empty = path.join(folder, "node.ext4");
      writeFileSync(empty, Buffer.alloc(1 << 20));
      const options = await provision("lab", () => undefined);
      const guest = await Guest.boot(completeMachine({ kernel: "lab", iommu: "none" }), {
        ...options,
        files: { ...options.files, node: empty },
      });
      try {
        expect((await guest.run(["sh", "-c", "command -v node && node -e 0"])).stdout).toBe(
          "/usr/bin/node\n",
        );
      } finally {
        await guest.close();
      }
    },
    BOOT_LIMIT,
  );

  it(
    "panics: QEMU ends, and the error shows the kernel's last words",
    async () => {
      const doomed = await sharedGuest({ kernel: "lab", iommu: "none" });
      const failure = doomed.run(["sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000"]);
      await expect(failure).rejects.toMatchObject({
        code: "E_GUEST",
        why: expect.stringMatching(/its kernel panicked[\s\S]*sysrq triggered crash/) as string,
      });
      expect(doomed.alive).toBe(false);
    },
    BOOT_LIMIT,
  );

  it(
    "hangs: it is ended at the limit with its console, and the next test gets a new one",
    async () => {
      const stuck = await sharedGuest({ kernel: "lab", iommu: "none" });
      await stuck.run(["sh", "-c", "echo last words > /dev/kmsg; echo '<1>seen on the console' > /dev/kmsg"]);
      await vi.waitFor(() => expect(stuck.console()).toContain("seen on the console"), { timeout: 60_000 });
      await expect(stuck.run(["sleep", "1000"], { limit: 2 })).rejects.toMatchObject({
        why: expect.stringMatching(/did not end within 2 s[\s\S]*seen on the console/) as string,
      });
      const next = await sharedGuest({ kernel: "lab", iommu: "none" });
      expect((await next.run(["true"])).status).toBe(0);
    },
    BOOT_LIMIT,
  );
});

/** Processes of this machine whose command line has the word. */
function processesWith(word: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(word);
    } catch {
      return false;
    }
  });
}

/** The command line with a command in a guest that never ends; its temporary files are below `folder`. */
interface Endless {
  readonly child: ChildProcess;
  readonly folder: string;
  readonly closed: Promise<number | null>;
}

/** Starts it; process and folder are gone after the test. */
function beginEndless(): Endless {
  const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-endless-"));
  const words = ["lab", "guest", "--iommu", "none", "--", "sh", "-c", "echo up; sleep 1000"];
  const child = spawn(process.execPath, [cliPath, ...words], {
    env: { ...process.env, TMPDIR: folder },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  onTestFinished(async () => {
    child.kill("SIGKILL"); // its guest ends with it
    await closed;
    await expect.poll(() => processesWith(folder), { timeout: 60_000 }).toEqual([]);
    rmSync(folder, { recursive: true, force: true });
  });
  return { child, folder, closed };
}

/** Starts it, and waits until the command speaks. */
async function endless(): Promise<Endless> {
  const begun = beginEndless();
  await Promise.race([
    new Promise((resolve) => begun.child.stdout!.once("data", resolve)),
    begun.closed.then((status) => {
      throw new Error(`it ended with ${status} before its command spoke`);
    }),
  ]);
  return begun;
}

describe("bifurcate lab guest", () => {
  it(
    "Ctrl-C ends it with 130, and leaves no process and no file",
    async () => {
      await endSharedGuest();
      const { child, folder, closed } = await endless();
      expect(processesWith(folder).length).toBeGreaterThan(0);
      child.kill("SIGINT");
      expect(await closed).toBe(130);
      expect(processesWith(folder)).toEqual([]);
      expect(readdirSync(folder)).toEqual([]);
    },
    BOOT_LIMIT,
  );

  it(
    "Ctrl-C ends it while it boots, also a boot that would never end",
    async () => {
      await endSharedGuest();
      const { child, folder, closed } = beginEndless();
      const qemu = (): number | undefined =>
        processesWith(folder)
          .map(Number)
          .find((pid) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("virtserialport"));
      await expect.poll(qemu, { timeout: BOOT_LIMIT / 2 }).toBeDefined();
      process.kill(qemu()!, "SIGSTOP");
      child.kill("SIGINT");
      // A boot that is given up at its limit has another status.
      expect(await closed).toBe(130);
      expect(processesWith(folder)).toEqual([]);
      expect(readdirSync(folder)).toEqual([]);
    },
    2 * BOOT_LIMIT,
  );

  it(
    "works offline when the cache is full: two wired cards of igb, as devices shows them",
    async ({ skip }) => {
      skip(process.getuid?.() !== 0, "needs root: it makes a network namespace without a network");
      await endSharedGuest();
      const words = ["lab", "guest", "--nics", "igb,igb", "--", "bifurcate", "devices", "--json"];
      const child = spawn("unshare", ["--net", "--", process.execPath, cliPath, ...words], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let stdout = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
      expect(await new Promise((resolve) => child.once("close", resolve))).toBe(0);
      const { devices } = JSON.parse(stdout) as { devices: { name: string; driver: string }[] };
      const cards = devices.filter(({ driver }) => driver === "igb").map(({ name }) => name);
      expect(cards).toEqual(["nic0", "nic1"]);
    },
    BOOT_LIMIT,
  );

  it(
    "takes QEMU with it when it is killed",
    async () => {
      const { child, folder, closed } = beginEndless();
      const qemu = (): string[] =>
        processesWith("qemu-system").filter((pid) => processesWith(folder).includes(pid));
      await expect.poll(() => qemu().length, { timeout: BOOT_LIMIT / 2 }).toBeGreaterThan(0);
      child.kill("SIGKILL");
      await closed;
      await expect.poll(() => processesWith(folder), { timeout: 60_000 }).toEqual([]);
    },
    BOOT_LIMIT,
  );
});
