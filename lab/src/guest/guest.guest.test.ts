// A guest as its users see it: what a command prints and ends with, and its NICs.
import { beforeAll, describe, expect, it } from "vitest";
import type { Guest } from "./guest.js";
import { BOOT_LIMIT, sharedGuest } from "./shared.js";

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

  it("runs the Node that the host runs", async () => {
    expect((await guest.run(["node", "--version"])).stdout).toBe(`${process.version}\n`);
  });

  it("says 127 for a program that is not there, and 128 + N after a signal", async () => {
    expect((await guest.run(["no-such-program"])).status).toBe(127);
    const sleeping = guest.start(["sh", "-c", "echo up; sleep 1000"]);
    await new Promise((resolve) => sleeping.stdout.once("data", resolve));
    sleeping.kill("SIGTERM");
    expect(await sleeping.ended).toBe(128 + 15);
  });

  it("outlives a command that cannot be started", async () => {
    for (const word of ["", "/etc/passwd/program", "x".repeat(5000), "/etc"]) {
      const { status, stderr } = await guest.run([word]);
      expect([126, 127]).toContain(status);
      expect(stderr).not.toBe("");
    }
    expect((await guest.run(["true"])).status).toBe(0);
  });

  it("makes a command wait whose output nobody reads, and loses none of it", async () => {
    const bytes = 8 * 2 ** 20;
    const script = `rm -f /tmp/written; head -c ${bytes} /dev/zero; echo all > /tmp/written`;
    const loud = guest.start(["sh", "-c", script], { limit: 280 });
    // Others are served meanwhile.
    for (let n = 0; n < 20; n += 1) expect((await guest.run(["true"])).status).toBe(0);
    expect((await guest.run(["cat", "/tmp/written"])).status).toBe(1);
    let read = 0;
    loud.stdout.on("data", (chunk: Buffer) => (read += chunk.length));
    expect(await loud.ended).toBe(0);
    expect(read).toBe(bytes);
  });

  it("makes whoever writes to a command wait that does not read", async () => {
    const deaf = guest.start(["sleep", "1000"], { limit: 280 });
    let accepted = 0;
    const chunk = Buffer.alloc(2 ** 16);
    const offer = (): void => {
      while (accepted < 2 ** 28 && deaf.stdin.write(chunk)) accepted += chunk.length;
    };
    deaf.stdin.on("drain", offer).on("error", () => undefined);
    offer();
    for (let n = 0; n < 20; n += 1) expect((await guest.run(["true"])).status).toBe(0);
    // A pipe's worth, and what streams hold on the way.
    expect(accepted).toBeLessThan(2 ** 20);
    deaf.kill("SIGTERM");
    expect(await deaf.ended).toBe(128 + 15);
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
