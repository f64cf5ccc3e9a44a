// What doctor says of real drivers, and a comparison that takes a spare card of the bus and gives it back.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Comparison } from "@bifurcate/control";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { farEnd } from "@bifurcate/lab/guest/wire";
import { settings, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;

let guest: Guest;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
}, BOOT_LIMIT);

interface Finding {
  readonly name: string;
  readonly mend: string | null;
}

/** What `bifurcate doctor` finds on a card. */
async function findings(name: string): Promise<readonly Finding[]> {
  const { stdout } = await guest.run(["bifurcate", "doctor", name, "--json"]);
  return (JSON.parse(stdout) as { findings: Finding[] }).findings;
}

const names = (found: readonly Finding[]): string[] => found.map(({ name }) => name);

describe("doctor", () => {
  it("knows what drivers do", { timeout: MINUTES }, async () => {
    await shell(guest, "ip link set dev nic0 up; ip link set dev nic1 up");
    try {
      expect(names(await findings("nic0"))).toEqual(
        expect.arrayContaining(["fill-before-bind", "link-bounces"]),
      );
      expect(names(await findings("nic1"))).toContain("no-xdp-in-driver");
    } finally {
      await shell(guest, "ip link set dev nic0 down; ip link set dev nic1 down");
    }
  });

  it(
    "names an MTU that igb's XDP does not take, and its command mends that",
    { timeout: MINUTES },
    async () => {
      await shell(guest, "ip link set dev nic0 mtu 9000");
      try {
        const mtu = (await findings("nic0")).find(({ name }) => name === "mtu-too-large");
        expect(mtu?.mend).toMatch(/^sudo ip link set dev nic0 mtu \d+$/);
        await shell(guest, mtu!.mend!.replace("sudo ", ""));
        expect(names(await findings("nic0"))).not.toContain("mtu-too-large");
      } finally {
        await shell(guest, "ip link set dev nic0 mtu 1500");
      }
    },
  );
});

describe("compare --run", () => {
  /** How the two ends of the spare wire come by their link-local addresses; commands that bring that back. */
  let restore: string[] = [];

  beforeAll(async () => {
    const spare = ["nic0", farEnd(guest, "nic0").name];
    // The others are in use, by addresses of their own.
    const used = guest.ports.map(({ name }) => name).filter((name) => !spare.includes(name));
    const links = JSON.parse(await shell(guest, "ip -d -j link")) as {
      ifname: string;
      inet6_addr_gen_mode: string;
    }[];
    restore = [
      ...links
        .filter(({ ifname }) => spare.includes(ifname))
        .map(({ ifname, inet6_addr_gen_mode: mode }) => `ip link set dev ${ifname} addrgenmode ${mode}`),
      ...used.map((name, at) => `ip addr del 198.51.100.${at + 1}/32 dev ${name}`),
    ];
    await shell(
      guest,
      [
        ...spare.map((name) => `ip link set dev ${name} addrgenmode eui64`),
        ...used.map((name, at) => `ip addr add 198.51.100.${at + 1}/32 dev ${name}`),
      ].join("; "),
    );
  }, MINUTES);

  afterAll(() => shell(guest, restore.join("; ")), MINUTES);

  /** Of the machine's cards what a user would miss. */
  const place = (): Promise<string> =>
    shell(guest, "ip netns list; for i in /sys/class/net/*; do basename $i; readlink $i/device/driver; done");

  it(
    "measures on the spare card alone, takes it for VFIO, and gives it back",
    { timeout: MINUTES },
    async () => {
      const before = [await place(), await settings(guest, "nic0")];
      const only = ["--only", "AF_PACKET", "VFIO group"];
      const words = ["compare", "--run", "--seconds", "2", "--rate", "200", "--json", ...only];
      const { status, stdout, stderr } = await guest.run(["bifurcate", ...words], { limit: 500 });
      expect(status, stderr).toBe(0);
      const { comparisons } = JSON.parse(stdout) as { comparisons: Comparison[] };
      expect(comparisons.map(({ card }) => card?.name)).toEqual(["nic0"]);
      const of = (mechanism: string) =>
        comparisons[0]!.mechanisms.find((each) => each.mechanism === mechanism)!;
      for (const mechanism of ["AF_PACKET", "VFIO group"]) {
        const { measurement, cells } = of(mechanism);
        const says = cells.performance.map((each) => each.says).join("; ");
        expect(measurement?.saturated.received, says).toBeGreaterThan(0);
      }
      expect(of("AF_PACKET").measurement!.kernel).toHaveProperty("quiet");
      // It had no interface then.
      expect(of("VFIO group").measurement!.kernel).not.toHaveProperty("quiet");
      expect([await place(), await settings(guest, "nic0")]).toEqual(before);
    },
  );
});
