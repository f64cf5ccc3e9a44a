// Packets that vanish on a real driver, in the guest: what no card of a network namespace can have wrong.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Explanation, LiveVerdict } from "@bifurcate/control";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { endAll } from "@bifurcate/lab/harness";
import { endSplit, LIFE, own, settings, shell, startSplit } from "../testing/guest-split.js";

const MINUTES = 600_000;
/** Nobody's address. */
const OTHER = "02:00:00:00:00:99";

let guest: Guest;
let wire: Wire;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  wire = await bringUp(guest, "nic0");
}, BOOT_LIMIT);

afterEach(() => endAll());

afterAll(() => takeDown(guest, wire), MINUTES);

/** `bifurcate explain nic0 PACKET --json`, and what was counted meanwhile with `--live`. */
async function explain(more = "", live: readonly string[] = []): Promise<string> {
  const packet = `udp ${wire.far.v4}:4242 > ${wire.nic.v4}:7777${more}`;
  const { stdout } = await guest.run(["bifurcate", "explain", "nic0", packet, "--json", ...live]);
  return stdout;
}

const told = async (more = ""): Promise<Explanation> => JSON.parse(await explain(more)) as Explanation;
const counted = async (more = ""): Promise<LiveVerdict> =>
  JSON.parse(await explain(more, ["--live", "--seconds", "2"])) as LiveVerdict;
const arrived = ({ counted: rows }: LiveVerdict): number =>
  rows.find(({ name }) => name === "link")!.packets ?? 0;

const names = ({ complaints }: Explanation): string[] => complaints.map((each) => each.name);

/** Pings from the far end, for as long as `look` takes. */
async function pinged<T>(look: () => Promise<T>): Promise<T> {
  const words = ["netns", "exec", wire.far.netns, "ping", "-q", "-i", "0.2", wire.nic.v4];
  const pinging = guest.start(["ip", ...words], { limit: LIFE });
  try {
    return await look();
  } finally {
    pinging.kill("SIGINT");
    await pinging.ended;
  }
}

/**
 * What is counted while the far end pings: `some` that arrive, or none. Counted again where it is otherwise, since a
 * machine that stands still sends none, and the kernels at both ends say something of their own now and then.
 */
async function countedPing(some: boolean, more = ""): Promise<LiveVerdict> {
  return pinged(async () => {
    for (let left = 10; ; left--) {
      const verdict = await counted(more);
      if (arrived(verdict) > 0 === some || left === 0) return verdict;
    }
  });
}

describe("packets that vanish on igb", () => {
  it(
    "are another's, and the card is not promiscuous",
    async () => {
      const neighbour = (mac: string): Promise<string> =>
        shell(
          guest,
          `ip -n ${wire.far.netns} neigh replace ${wire.nic.v4} lladdr ${mac} dev ${wire.far.name} nud permanent`,
        );
      await neighbour(OTHER);
      try {
        const { vanish } = await countedPing(false, ` to ${OTHER}`);
        expect(vanish).toMatchObject({ stage: "link", complaint: { name: "promiscuous-off" } });
        await shell(guest, "ip link set dev nic0 promisc on");
        const open = await countedPing(true, ` to ${OTHER}`);
        expect(names(open.explanation)).not.toContain("promiscuous-off");
        expect(arrived(open)).toBeGreaterThan(0);
      } finally {
        await shell(guest, "ip link set dev nic0 promisc off");
        await neighbour(wire.nic.mac);
      }
    },
    MINUTES,
  );

  it(
    "do not vanish where they are only copied, and that is said",
    async () => {
      const { split } = await startSplit(guest, ["nic0", "--flow", "udp port 7777", "--do", "count"]);
      const { vanish, explanation } = await countedPing(true);
      expect(vanish).toBeNull();
      expect(names(explanation)).toContain("copy-mode");
      await endSplit(split);
    },
    MINUTES,
  );

  it(
    "would never come to a program: the MTU is more than its XDP takes",
    async () => {
      await shell(guest, "ip link set dev nic0 mtu 9000");
      try {
        const { complaints } = await told();
        const found = complaints.find((each) => each.name === "mtu-too-large");
        expect(found?.says).toContain("the MTU of nic0 is 9000, and igb takes XDP up to 3046");
      } finally {
        await shell(guest, "ip link set dev nic0 mtu 1500");
      }
      expect(names(await told())).not.toContain("mtu-too-large");
    },
    MINUTES,
  );

  it(
    "meet what a split has left that was killed with its guardian: it is named, and so is what mends it",
    async () => {
      await shell(guest, "ethtool -L nic0 combined 2");
      const before = await settings(guest, "nic0");
      // A flow that looks at tags has VLAN stripping switched off.
      const { process } = await own(guest, "nic0", "vlan and udp", []);
      // Both stand still first: an owner starts its guardian again, and a guardian undoes what its owner did.
      await shell(
        guest,
        `both=$(grep -oh '"pid":[0-9]*' /run/bifurcate/*.json | cut -d: -f2); kill -STOP $both; kill -KILL $both`,
      );
      await process.ended;
      expect(await settings(guest, "nic0")).not.toBe(before);
      const left = (await told()).complaints.find((each) => each.name === "rules-left");
      expect(left?.says).toContain("is dead");
      await shell(guest, left!.mend!.replace("sudo ", ""));
      expect(await settings(guest, "nic0")).toBe(before);
      expect(names(await told())).not.toContain("rules-left");
    },
    MINUTES,
  );
});
