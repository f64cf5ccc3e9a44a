// Splits on the drivers of real cards, in the guest: zero-copy, copies beside the kernel, refusals, long frames, tags.
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { endAll } from "@bifurcate/lab/harness";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import {
  datagrams,
  echoHandler,
  endServers,
  endSplit,
  failure,
  kernelEcho,
  receives,
  settings,
  shell,
  startSplit,
} from "../testing/guest-split.js";

const MINUTES = 600_000;

let guest: Guest;
let echo: string;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  echo = await echoHandler(guest);
}, BOOT_LIMIT);

afterEach(async () => {
  await endAll();
  await endServers();
});

/** Brings a card up for each test of a suite, and down after it. */
function wireOf(name: string, mtu = 1500): { readonly wire: Wire } {
  const made: { wire: Wire } = { wire: undefined as never };
  beforeAll(async () => {
    made.wire = await bringUp(guest, name, mtu);
  }, BOOT_LIMIT);
  afterAll(async () => {
    await takeDown(guest, made.wire);
    await shell(guest, `ip link set dev ${name} mtu 1500`);
  });
  return made;
}

async function carrierNow(name: string): Promise<string> {
  return (await shell(guest, `cat /sys/class/net/${name}/carrier`)).trim();
}

describe.each([
  { name: "nic0", driver: "igb" },
  { name: "nic2", driver: "virtio_net" },
])("$driver", ({ name, driver }) => {
  const at = wireOf(name);

  it(
    "gives the whole card without a copy, and loses nothing in either direction at a paced rate",
    async () => {
      const before = await settings(guest, name);
      const words = [name, "--flow", "all", "--zero-copy", "require", "--do", `run=${echo}`];
      const { split, path } = await startSplit(guest, words);
      expect(path).toMatchObject({ backend: "af_xdp", xdp: "driver", mode: "zero-copy" });
      // Read back from the socket (XDP_OPTIONS), not what was asked for.
      expect(path.obtained.zeroCopy).toBe(true);
      // igb closes and opens the device when the program comes: the split waited for the link.
      expect(await carrierNow(name)).toBe("1");
      const all = { sent: 1500, echoed: 1500 };
      expect(await datagrams(guest, at.wire, 7777, { count: 1500 })).toMatchObject(all);
      const { received, ...rest } = await endSplit(split);
      expect(rest).toMatchObject({ sent: 1500, noFrames: 0 });
      // All that comes is the split's: also what the far kernel says of its groups (MLD) when its card comes up.
      expect(received).toBeGreaterThanOrEqual(1500);
      expect(await settings(guest, name)).toBe(before);
    },
    MINUTES,
  );

  it(
    "gives a flow of shared queues with a copy, beside the kernel's traffic, and loses nothing of either",
    async () => {
      await kernelEcho(guest);
      const { split, path } = await startSplit(guest, [
        name,
        "--flow",
        "udp port 7777",
        "--do",
        `run=${echo}`,
      ]);
      expect(path).toMatchObject({ backend: "af_xdp", xdp: "driver", mode: "copy" });
      const all = expect.objectContaining({ sent: 300, echoed: 300 }) as unknown;
      const both = await Promise.all([
        datagrams(guest, at.wire, 7777, { count: 300, rate: 200 }),
        datagrams(guest, at.wire, 7, { count: 300, rate: 200 }),
      ]);
      expect(both).toEqual([all, all]);
      expect(await endSplit(split)).toMatchObject({ received: 300, sent: 300 });
    },
    MINUTES,
  );

  it(
    "a split that stops filling its ring costs the kernel no packet",
    async () => {
      await kernelEcho(guest);
      const { split, process } = await startSplit(guest, [name, "--flow", "udp port 7777", "--do", "count"]);
      process.kill("SIGSTOP");
      // More than a ring holds (2,048): nobody takes them, and nobody gives frames back.
      const stream = { count: 400, rate: 100, beside: { port: 7777, each: 8 } };
      const all = { sent: 400, echoed: 400, beside: 3200 };
      expect(await datagrams(guest, at.wire, 7, stream)).toEqual(all);
      process.kill("SIGCONT");
      // What the rings held is there; what came after has been dropped, as its owner's own loss.
      await receives(split, 1);
      expect((await endSplit(split)).received).toBeLessThan(all.beside);
    },
    MINUTES,
  );

  it(
    "refuses zero-copy on shared queues, with the reason",
    async () => {
      const error = await failure(guest, [
        "split",
        name,
        "--flow",
        "udp port 7777",
        "--zero-copy",
        "require",
      ]);
      expect(error).toMatchObject({ status: 77, code: "E_NO_ZERO_COPY" });
      expect(error.why).toContain("the queues are shared with the kernel");
    },
    MINUTES,
  );

  it(
    "tells a tagged frame from others as libpcap does",
    async () => {
      const { far, nic } = at.wire;
      const tag = (id: number): string =>
        `ip -n ${far.netns} link add far.${id} link ${far.name} type vlan id ${id}; ` +
        `ip -n ${far.netns} addr add 198.51.100.${id}/30 dev far.${id}; ip -n ${far.netns} link set far.${id} up; ` +
        `ip -n ${far.netns} neigh replace 198.51.100.${id + 1} lladdr ${nic.mac} dev far.${id} nud permanent`;
      // Cards filter VLANs themselves: those of the VLAN devices on them come through.
      const vlan = (id: number): string =>
        `ip link add link ${name} name ${name}.${id} type vlan id ${id}; ip link set ${name}.${id} up`;
      onTestFinished(async () => {
        const gone = `ip -n ${far.netns} link del far.5; ip -n ${far.netns} link del far.9`;
        await shell(guest, `${gone}; ip link del ${name}.5; ip link del ${name}.9`);
      });
      await shell(guest, `${tag(5)}; ${tag(9)}; ${vlan(5)}; ${vlan(9)}`);
      const before = await settings(guest, name);
      const { split } = await startSplit(guest, [name, "--flow", "vlan 5 and udp", "--do", "count"]);
      const stream = { count: 50, rate: 100, oneWay: true };
      await datagrams(guest, at.wire, 7777, { ...stream, host: "198.51.100.10" });
      await datagrams(guest, at.wire, 7777, stream);
      await datagrams(guest, at.wire, 7777, { ...stream, host: "198.51.100.6" });
      // Last: the others have come before.
      await receives(split, 50);
      expect((await endSplit(split)).received).toBe(50);
      expect(await settings(guest, name)).toBe(before);
    },
    MINUTES,
  );

  it("announces the interruption before it happens", async () => {
    const plan = await shell(guest, `bifurcate split ${name} --flow all --dry-run`);
    expect(plan).toContain(
      driver === "igb" ? "igb closes and reopens the device" : "offloads of the host are off",
    );
  });
});

describe.each([
  {
    name: "nic1",
    driver: "e1000e",
    whole: "the driver e1000e has no XDP of its own",
    flow: "the driver e1000e has no XDP of its own",
  },
  {
    name: "nic3",
    driver: "vmxnet3",
    whole: "the driver vmxnet3 has no zero-copy",
    flow: "the queues are shared with the kernel",
  },
])("$driver", ({ name, whole, flow }) => {
  wireOf(name);

  it(
    "has no zero-copy: required, it is an error that says so",
    async () => {
      for (const [asked, why] of [
        ["all", whole],
        ["udp port 7777", flow],
      ] as const) {
        const error = await failure(guest, ["split", name, "--flow", asked, "--zero-copy", "require"]);
        expect(error).toMatchObject({ status: 77, code: "E_NO_ZERO_COPY" });
        expect(error.why).toContain(why);
      }
    },
    MINUTES,
  );
});

describe("long frames", () => {
  describe("virtio_net at an MTU of 9,000", () => {
    const at = wireOf("nic2", 9000);

    it(
      "arrive whole, with a copy",
      async () => {
        const { split, path } = await startSplit(guest, [
          "nic2",
          "--flow",
          "udp port 7777",
          "--do",
          `run=${echo}`,
        ]);
        expect(path).toMatchObject({ xdp: "driver", mode: "copy" });
        expect(await datagrams(guest, at.wire, 7777, { count: 200, rate: 100, size: 8972 })).toMatchObject({
          sent: 200,
          echoed: 200,
        });
        expect(await endSplit(split)).toMatchObject({ received: 200, sent: 200, tooLong: 0 });
      },
      MINUTES,
    );
  });

  describe("igb", () => {
    const at = wireOf("nic0", 3046);

    it(
      "arrive whole, with a copy, at the largest MTU that its XDP takes",
      async () => {
        const { split, path } = await startSplit(guest, [
          "nic0",
          "--flow",
          "udp port 7777",
          "--do",
          `run=${echo}`,
        ]);
        expect(path).toMatchObject({ xdp: "driver", mode: "copy" });
        const stream = { count: 100, rate: 100, size: 3046 - 28 };
        expect(await datagrams(guest, at.wire, 7777, stream)).toMatchObject({ sent: 100, echoed: 100 });
        await endSplit(split);
      },
      MINUTES,
    );

    it(
      "of an MTU beyond it are an error that names the largest",
      async () => {
        await shell(guest, "ip link set dev nic0 mtu 9000");
        const error = await failure(guest, ["split", "nic0", "--flow", "all", "--zero-copy", "require"]);
        expect(error.why).toContain("the MTU of nic0 is 9000, and igb takes XDP up to 3046");
        await shell(guest, "ip link set dev nic0 mtu 3047");
        const plan = await shell(guest, "bifurcate split nic0 --flow 'udp port 7777' --dry-run");
        expect(plan).toContain("the MTU of nic0 is 3047, and igb takes XDP up to 3046");
      },
      MINUTES,
    );
  });
});
