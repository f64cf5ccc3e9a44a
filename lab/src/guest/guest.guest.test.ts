// A guest as its users see it: what a command prints and ends with, its NICs, and how it ends when it goes wrong.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { cliPath } from "../harness.js";
import type { Guest } from "./guest.js";
import { BOOT_LIMIT, endSharedGuest, sharedGuest } from "./shared.js";

let guest: Guest;

describe("a guest with one NIC of each model", () => {
  beforeAll(async () => {
    guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  }, BOOT_LIMIT);

  it("gives a command's output and status as they are", async () => {
    const ended = await guest.run(["sh", "-c", "echo out; echo err >&2; exit 7"]);
    expect(ended).toEqual({ status: 7, stdout: "out\n", stderr: "err\n" });
  });

  it("gives it stdin, byte for byte", async () => {
    const input = Array.from({ length: 20_000 }, (_, n) => `line ${n} é\0`).join("\n");
    expect((await guest.run(["cat"], { input })).stdout).toBe(input);
  });

  it("says 127 for a program that is not there, and 128 + N after a signal", async () => {
    expect((await guest.run(["no-such-program"])).status).toBe(127);
    const sleeping = guest.start(["sh", "-c", "echo up; sleep 1000"]);
    await new Promise((resolve) => sleeping.stdout.once("data", resolve));
    sleeping.kill("SIGTERM");
    expect(await sleeping.ended).toBe(128 + 15);
  });

  it("has the NICs asked for, under their names and with their drivers", async () => {
    const { stdout } = await guest.run(["bifurcate", "devices", "--json"]);
    const { devices } = JSON.parse(stdout) as { devices: { name: string; driver: string }[] };
    const drivers = Object.fromEntries(devices.map((device) => [device.name, device.driver]));
    expect(drivers).toMatchObject({ nic0: "igb", nic1: "e1000e", nic2: "virtio_net", nic3: "vmxnet3" });
    const names = guest.ports.map((port) => port.name);
    expect(names).toEqual(["nic0", "far0", "nic1", "far1", "nic2", "far2", "nic3", "far3"]);
    for (const port of guest.ports) {
      const link = await guest.run(["readlink", "-f", `/sys/class/net/${port.name}/device`]);
      expect(link.stdout).toContain(port.pci);
    }
  });

  it("has an IOMMU group for each NIC, iommufd, hugepages and SR-IOV", async () => {
    const groups = await Promise.all(
      guest.ports.map(
        async ({ pci }) => (await guest.run(["readlink", `/sys/bus/pci/devices/${pci}/iommu_group`])).stdout,
      ),
    );
    expect(new Set(groups).size).toBe(guest.ports.length);
    const script = [
      "set -e",
      "test -c /dev/iommu && test -c /dev/vfio/vfio",
      "echo 8 > /proc/sys/vm/nr_hugepages && grep -q '^HugePages_Total: *8$' /proc/meminfo",
      "echo 0 > /proc/sys/vm/nr_hugepages",
      "echo 2 > /sys/class/net/nic0/device/sriov_numvfs",
      "readlink -f /sys/class/net/nic0/device/virtfn*/iommu_group | sort -u | wc -l",
      "echo 0 > /sys/class/net/nic0/device/sriov_numvfs",
    ].join("\n");
    expect(await guest.run(["sh", "-c", script])).toEqual({ status: 0, stdout: "2\n", stderr: "" });
  });
});

describe("a guest that goes wrong", () => {
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

/** Starts it, below `prefix`, and waits until the command speaks. */
async function endless(prefix: string[] = []): Promise<Endless> {
  const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-endless-"));
  const words = ["lab", "guest", "--iommu", "none", "--", "sh", "-c", "echo up; sleep 1000"];
  const [program, ...args] = [...prefix, process.execPath, cliPath, ...words] as [string, ...string[]];
  const child = spawn(program, args, {
    env: { ...process.env, TMPDIR: folder },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  await Promise.race([
    new Promise((resolve) => child.stdout!.once("data", resolve)),
    closed.then((status) => Promise.reject(new Error(`it ended with ${status} before its command spoke`))),
  ]);
  return { child, folder, closed };
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
      rmSync(folder, { recursive: true });
    },
    BOOT_LIMIT,
  );

  it(
    "works offline when the cache is full, and QEMU ends with it even when it is killed",
    async ({ skip }) => {
      skip(process.getuid?.() !== 0, "needs root: it makes a network namespace without a network");
      await endSharedGuest();
      const { child, folder, closed } = await endless(["unshare", "--net", "--"]);
      child.kill("SIGKILL");
      await closed;
      await expect.poll(() => processesWith(folder), { timeout: 10_000 }).toEqual([]);
      rmSync(folder, { recursive: true });
    },
    BOOT_LIMIT,
  );
});
