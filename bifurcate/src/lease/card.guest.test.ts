// Cards leased whole, by VFIO behind an IOMMU: the broker as its own user, clients as nobody, both ends killed.
import type { Guest } from "@bifurcate/lab/guest/guest";
import type { GuestProcess } from "@bifurcate/lab/guest/guest-process";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { NOBODY } from "../testing/broker.js";
import { GuestBroker, type CardEvent } from "../testing/guest-broker.js";
import { pciOf } from "../testing/guest-card.js";
import { shell } from "../testing/guest-split.js";

const MINUTES = 600_000;
/** Nothing at all: /proc/PID/status of a process without any capability. */
const NO_CAPABILITY = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(
  (name) => `${name}:\t0000000000000000`,
);

let guest: Guest;
let igb: Wire;
let card: string;
let broker: GuestBroker;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  igb = await bringUp(guest, "nic0");
  card = pciOf(guest, "nic0");
  broker = new GuestBroker(guest);
  await broker.prepare([card]);
  await broker.policy(
    `[card]\nuser = ${NOBODY}, 65533\ndevice = ${card}\nmechanism = vfio\ntransmit = raw\nmemory = 64M\n`,
  );
}, BOOT_LIMIT);

afterEach(async () => {
  await broker.endAll();
}, MINUTES);

afterAll(async () => {
  await shell(guest, `bifurcate give ${card}; rm -rf /run/bifurcate`);
  await takeDown(guest, igb);
});

/** How many of three echo requests are answered. */
async function pings(wait = 10): Promise<number> {
  const ping = `ip netns exec ${igb.far.netns} ping -n -c 3 -i 0.3 -W ${wait} ${igb.nic.v4} || true`;
  return Number(/(\d+) received/.exec(await shell(guest, ping))?.[1]);
}

const lease = (uid?: number, stubborn = false): Promise<[GuestProcess, CardEvent]> =>
  broker.client({ spec: `pci:${card},via=broker,ringSize=64,frames=512`, stubborn }, uid);

describe("a card that is leased whole", () => {
  it(
    "is driven by a user without any capability, is nobody else's meanwhile, and free when it is given back",
    async () => {
      await broker.start();
      const [client, opened] = await lease();
      expect(opened).toMatchObject({ event: "open", uid: NOBODY, caps: NO_CAPABILITY });
      expect(await pings()).toBe(3);
      expect(await broker.leases()).toMatchObject([
        { id: opened.id, device: card, mechanism: "vfio", state: "granted", uid: NOBODY, flows: [] },
      ]);
      const [, refused] = await lease(65_533);
      expect(refused).toMatchObject({ event: "refused", code: "E_CARD_BUSY" });
      client.kill("SIGTERM");
      expect(await broker.event(client, "end")).toMatchObject({ received: expect.any(Number) as number });
      expect(await broker.free()).toBe(true);
      const [, again] = await lease(65_533);
      expect(again).toMatchObject({ event: "open", uid: 65_533 });
      expect(await pings()).toBe(3);
    },
    MINUTES,
  );
});
