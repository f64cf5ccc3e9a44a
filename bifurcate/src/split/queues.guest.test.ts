// Several queues of real drivers: all of them have a socket, those that come with the XDP program too.
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { endAll } from "@bifurcate/lab/harness";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { datagrams, echoHandler, endSplit, settings, shell, startSplit } from "../testing/guest-split.js";

const MINUTES = 600_000;
/** A key of the hash that spreads flows: Microsoft's, of "Verifying the RSS Hash Calculation". */
const KEY =
  "6d:5a:56:da:25:5b:0e:c2:41:67:25:3d:43:a3:8f:b0:d0:ca:2b:cb:ae:7b:30:b4:77:cb:2d:a3:80:30:f2:0c:6a:42:b7:3b:be:ac:01:fa";

let guest: Guest;
let echo: string;
let wire: Wire | undefined;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "virtio:4,igb", kernel: "lab", iommu: "intel" });
  echo = await echoHandler(guest);
}, BOOT_LIMIT);

afterEach(async () => {
  await endAll();
  if (wire !== undefined) await takeDown(guest, wire);
  wire = undefined;
});

/** More addresses at the far end, so that the card has several flows to spread. */
async function sources({ far, nic }: Wire): Promise<string[]> {
  const last = Number(far.v4.split(".")[3]);
  const more = Array.from({ length: 8 }, (_, i) => `192.0.2.${last + 1 + i}`);
  const commands = more.map(
    (address) =>
      `ip -n ${far.netns} addr add ${address}/28 dev ${far.name}; ` +
      `ip neigh replace ${address} lladdr ${far.mac} dev ${nic.name} nud permanent`,
  );
  await shell(guest, commands.join("; "));
  return more;
}

/** How many of the flows from these addresses each of nic1's four queues gets, as `explain` works it out. */
async function foretold({ nic }: Wire, from: readonly string[]): Promise<number[]> {
  const flows = [0, 0, 0, 0];
  for (const source of from) {
    const packet = `udp ${source}:4242 > ${nic.v4}:7777`;
    const { stdout } = await guest.run(["bifurcate", "explain", nic.name, packet, "--json"]);
    const { queues } = JSON.parse(stdout) as { queues: number[] };
    expect(queues).toHaveLength(1);
    flows[queues[0]!]! += 1;
  }
  return flows;
}

describe("several queues", () => {
  it(
    "of virtio_net: the queues that the driver adds for XDP are read after it, and have sockets too",
    async () => {
      wire = await bringUp(guest, "nic0");
      await shell(guest, "ethtool -L nic0 combined 2");
      const before = await settings(guest, "nic0");
      const { split, path } = await startSplit(guest, [
        "nic0",
        "--flow",
        "udp port 7777",
        "--do",
        `run=${echo}`,
      ]);
      // drivers/net/virtio_net.c virtnet_xdp_set(): one more for each of the guest's two processors.
      expect(path.queues).toEqual([0, 1, 2, 3]);
      const stream = { count: 800, rate: 200, sources: await sources(wire) };
      expect(await datagrams(guest, wire, 7777, stream)).toMatchObject({ sent: 800, echoed: 800 });
      // It was not planned anew because of the queues that it brought along.
      expect(split.events.filter((each) => each.event === "warning")).toEqual([]);
      expect((await endSplit(split)).received).toBe(800);
      expect(await settings(guest, "nic0")).toBe(before);
    },
    MINUTES,
  );

  it(
    "of virtio_net with the whole card: each one without a copy",
    async () => {
      wire = await bringUp(guest, "nic0");
      const words = ["nic0", "--flow", "all", "--zero-copy", "require", "--do", `run=${echo}`];
      const { split, path } = await startSplit(guest, words);
      expect(path).toMatchObject({ mode: "zero-copy", queues: [0, 1, 2, 3] });
      const stream = { count: 800, rate: 200, sources: await sources(wire) };
      expect(await datagrams(guest, wire, 7777, stream)).toMatchObject({ sent: 800, echoed: 800 });
      await endSplit(split);
    },
    MINUTES,
  );

  it(
    "of igb with the whole card: each one without a copy, and RSS spreads over them",
    async () => {
      wire = await bringUp(guest, "nic1");
      await shell(guest, "ethtool -L nic1 combined 4");
      // The kernel's own key is another at each boot, and of 32 there is one that sends all these sources to one queue.
      // An igb that takes no other (before Linux 6.17) keeps it.
      await shell(guest, `ethtool -X nic1 hkey ${KEY} || true`);
      const words = ["nic1", "--flow", "all", "--zero-copy", "require", "--do", `run=${echo}`];
      const { split, path } = await startSplit(guest, words);
      expect(path).toMatchObject({ mode: "zero-copy", queues: [0, 1, 2, 3] });
      const from = (await sources(wire)).slice(0, 4);
      const stream = { count: 800, rate: 200, sources: from };
      expect(await datagrams(guest, wire, 7777, stream)).toMatchObject({ sent: 800, echoed: 800 });
      const { queues } = await endSplit(split);
      expect(queues.filter((queue) => queue.received > 0).length).toBeGreaterThan(1);
      // Each flow is where `explain` says that the card's own key and table send it.
      const flows = await foretold(wire, from);
      expect(queues.map(({ received }) => received)).toEqual(flows.map((each) => each * 200));
      await shell(guest, "ethtool -L nic1 combined 2");
    },
    MINUTES,
  );
});
