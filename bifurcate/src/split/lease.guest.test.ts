// Queue leases on netdevsim, the one driver with queue management that needs no hardware: made, refused, undone.
import { afterEach, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { failure, own, shell, undone } from "../testing/guest-split.js";

const MINUTES = 600_000;
/** drivers/net/netdevsim: "ID PORTS QUEUES" makes a device with so many queues. */
const SIM = "sim0";

let guest: Guest;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
}, BOOT_LIMIT);

afterEach(async () => {
  await guest.run(["sh", "-c", "echo 7 > /sys/bus/netdevsim/del_device; rm -rf /run/bifurcate"]);
});

async function makeSim(queues = 4): Promise<void> {
  const wait =
    "for i in $(seq 600); do ls /sys/bus/netdevsim/devices/netdevsim7/net/* > /dev/null 2>&1 && break; sleep 0.1; done";
  await shell(
    guest,
    `echo "7 1 ${queues}" > /sys/bus/netdevsim/new_device; ${wait}; ` +
      `ip link set dev "$(basename /sys/bus/netdevsim/devices/netdevsim7/net/*)" name ${SIM}; ip link set dev ${SIM} up`,
  );
}

/** Runs a program on the guest's kernel as the control path sees it; gives what its last line says as JSON. */
async function kernel<T>(body: string): Promise<T> {
  const source = `
    import { nativeKernel } from "@bifurcate/control";
    const netns = nativeKernel().openNetns(null);
    const sim = netns.links().find(({ name }) => name === "${SIM}");
    const netkits = () => netns.links().filter(({ kind }) => kind === "netkit").map(({ name, mtu, up }) => ({ name, mtu, up }));
    const tried = (call) => { try { call(); return null; } catch ({ code, message }) { return { code, message }; } };
    console.log(JSON.stringify(await (async () => { ${body} })()));`;
  await guest.run(["tee", "bifurcate/lease-try.mjs"], { input: source });
  const out = await guest.run(["node", "bifurcate/lease-try.mjs"], { limit: 200 });
  if (out.status !== 0) throw new Error(out.stderr);
  return JSON.parse(out.stdout) as T;
}

interface Refused {
  readonly code: string;
  readonly message: string;
}

/** The step that `--lease` adds to a plan. */
function step(name: string, queues: readonly number[]): unknown {
  const lease = { kind: "lease", name, queues };
  return {
    when: "before",
    apply: { ...lease, present: true },
    undo: { ...lease, present: false },
    words: `lease queue ${queues.join(", ")}`,
  };
}

/** A process that owns a split of the simulated card, and a lease. */
const lessor = (queue: number): ReturnType<typeof own> =>
  own(guest, SIM, "udp port 7777", [step("bflease-test", [queue])]);

const leases = (): Promise<{ queue: number; leasedAs: number; elsewhere: boolean }[]> =>
  kernel(
    "return netns.queueLeases(sim.index).map(({ queue, leasedAs, elsewhere }) => ({ queue, leasedAs, elsewhere }));",
  );
const netkits = (): Promise<unknown[]> => kernel("return netkits();");

describe("a queue lease on netdevsim", () => {
  it(
    "is made with a netkit device of its own, reads back, and ends with that device",
    async () => {
      await makeSim();
      await shell(guest, `ip link set dev ${SIM} mtu 1400`);
      const seen = await kernel<Record<string, unknown>>(`
        const can = netns.canLeaseQueues();
        netns.leaseQueues(sim.index, [3, 1], "lease0");
        const during = { netkits: netkits(), leases: netns.queueLeases(sim.index).map(({ queue, leasedAs, elsewhere }) => ({ queue, leasedAs, elsewhere })) };
        netns.deleteLink(netns.links().find(({ name }) => name === "lease0").index);
        return { can, during, after: { netkits: netkits(), leases: netns.queueLeases(sim.index) } };`);
      expect(seen).toEqual({
        can: true,
        during: {
          // At the card's MTU; queue 0 is its own.
          netkits: [{ name: "lease0", mtu: 1400, up: true }],
          leases: [
            { queue: 1, leasedAs: 2, elsewhere: false },
            { queue: 3, leasedAs: 1, elsewhere: false },
          ],
        },
        after: { netkits: [], leases: [] },
      });
    },
    MINUTES,
  );

  it(
    "is refused in the kernel's words, and leaves no device behind",
    async () => {
      await makeSim();
      const seen = await kernel<Record<string, Refused | unknown>>(`
        netns.leaseQueues(sim.index, [3], "lease0");
        const lessee = netns.links().find(({ name }) => name === "lease0");
        const taken = tried(() => netns.leaseQueues(sim.index, [2, 3], "lease1"));
        const missing = tried(() => netns.leaseQueues(sim.index, [4], "lease2"));
        const virtual = tried(() => netns.leaseQueues(lessee.index, [1], "lease3"));
        const real = netns.links().find(({ name }) => name === "nic0");
        const driver = tried(() => netns.leaseQueues(real.index, [0], "lease4"));
        const fewer = tried(() => netns.setChannels("${SIM}", { rx: 0, tx: 0, other: 0, combined: 2 }));
        const left = netkits().map(({ name }) => name);
        netns.deleteLink(netns.links().find(({ name }) => name === "lease0").index);
        return { taken, missing, virtual, driver, fewer, left };`);
      expect(seen).toMatchObject({
        taken: { code: "EBUSY", message: expect.stringContaining("in use due to queue leasing") as string },
        missing: {
          code: "ERANGE",
          message: expect.stringMatching(/NETDEV_CMD_QUEUE_CREATE.*queue=4/) as string,
        },
        virtual: { code: "EINVAL", message: expect.stringContaining("is a virtual device") as string },
        driver: { code: "EINVAL", message: expect.stringContaining("queue management operations") as string },
        // The queue is the lessee's: the card cannot be made smaller under it.
        fewer: { code: "EINVAL" },
        left: ["lease0"],
      });
    },
    MINUTES,
  );

  it.each(["SIGTERM", "SIGKILL"] as const)(
    "is undone exactly when its owner ends by %s",
    async (signal) => {
      await makeSim();
      const before = await shell(guest, `ip link; ethtool -l ${SIM}`);
      const { process, said } = await lessor(3);
      expect(said()).toContain("live");
      expect(await leases()).toEqual([{ queue: 3, leasedAs: 1, elsewhere: false }]);
      process.kill(signal);
      await process.ended;
      await undone(guest);
      expect(await netkits()).toEqual([]);
      expect(await leases()).toEqual([]);
      expect(await shell(guest, `ip link; ethtool -l ${SIM}`)).toBe(before);
    },
    MINUTES,
  );

  it(
    "of a queue that somebody has is E_QUEUE_BUSY, of one that is not there E_NO_SUCH_QUEUE, and nothing is left",
    async () => {
      await makeSim();
      await kernel("netns.leaseQueues(sim.index, [1], 'lease9'); return null;");
      for (const [queue, code] of [
        [1, "E_QUEUE_BUSY"],
        [9, "E_NO_SUCH_QUEUE"],
      ] as const) {
        const { process, said } = await lessor(queue);
        await process.ended;
        expect(said()).toContain(code);
      }
      expect(await netkits()).toHaveLength(1);
      await shell(guest, "ip link del lease9");
      // A guardian goes a moment after its owner.
      await shell(
        guest,
        'for i in $(seq 300); do [ -z "$(ls /run/bifurcate)" ] && exit 0; sleep 0.2; done; ls /run/bifurcate; exit 1',
      );
    },
    MINUTES,
  );

  it(
    "of an AF_XDP socket that is bound without a lease is E_QUEUE_BUSY for the lease, and the other way round",
    async () => {
      await makeSim();
      const seen = await kernel<Record<string, Refused | null>>(`
        const { openAfXdp } = await import("@bifurcate/addon");
        const open = (ifname, queue) => openAfXdp(netns, { ifname, queues: [queue], frames: 256, frameSize: 2048, jumboFrames: 0, zeroCopy: "off", mode: "driver", busyPoll: false, metadata: false, pages: "auto", ringSize: 64 });
        netns.leaseQueues(sim.index, [3], "lease0");
        const direct = tried(() => open("${SIM}", 3));
        const leased = open("lease0", 1);
        const twice = tried(() => open("lease0", 1));
        await leased.close(0);
        netns.deleteLink(netns.links().find(({ name }) => name === "lease0").index);
        const socket = open("${SIM}", 2);
        const busy = tried(() => netns.leaseQueues(sim.index, [2], "lease1"));
        await socket.close(0);
        return { direct, twice, busy, left: netkits() };`);
      expect(seen).toMatchObject({
        direct: { code: "EBUSY" },
        twice: { code: "EBUSY" },
        busy: { code: "EBUSY", message: expect.stringContaining("in use by AF_XDP") as string },
        left: [],
      });
    },
    MINUTES,
  );

  it(
    "is told by devices; a split on one is E_NO_LEASE with what the card lacks",
    async () => {
      await makeSim();
      const { stdout } = await guest.run(["bifurcate", "devices", SIM, "--json"], { limit: 200 });
      const [device] = (
        JSON.parse(stdout) as { devices: { mechanisms: { name: string; can: boolean; why: string }[] }[] }
      ).devices;
      const lease = device!.mechanisms.find(({ name }) => name === "queue lease")!;
      expect(lease).toMatchObject({ can: true, why: expect.stringContaining("not for a split") as string });
      const error = await failure(guest, ["split", SIM, "--flow", "udp port 7777", "--lease"]);
      expect(error).toMatchObject({ status: 77, code: "E_NO_LEASE" });
      // Of a card that is down it would be that which is told.
      await shell(guest, "ip link set nic0 up");
      onTestFinished(async () => void (await shell(guest, "ip link set nic0 down")));
      const igb = await guest.run(["bifurcate", "devices", "nic0", "--json"], { limit: 200 });
      expect(igb.stdout).toContain("igb is not among the drivers with queue management");
    },
    MINUTES,
  );
});
