// A client that means no good, with a card of its own: what it can make the card reach, and what it can do to the memory.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { NOBODY } from "../testing/broker.js";
import { GuestBroker } from "../testing/guest-broker.js";
import { bringExample, pciOf } from "../testing/guest-card.js";
import { faults, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;
const PROGRAM = "/tmp/lent_card";
/** errno(3). */
const [EPERM, EACCES, EINVAL, ENOTTY] = [1, 13, 22, 25];

interface Tried {
  readonly spaces: readonly number[];
  readonly [what: string]: unknown;
}

let guest: Guest;
let igb: Wire;
let broker: GuestBroker;
let cards: readonly string[] = [];

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  await bringExample(guest, "bifurcate-datapath", "lent_card", ["wrong-dma"]);
  igb = await bringUp(guest, "nic0");
  cards = [pciOf(guest, "nic0"), pciOf(guest, "nic1")];
  broker = new GuestBroker(guest);
  await broker.prepare();
  for (const card of cards) await broker.take(card);
  const rule = (card: string): string =>
    `[card${card.replace(/\W/g, "")}]\nuser = ${NOBODY}\ndevice = ${card}\nmechanism = vfio\ntransmit = raw\n`;
  await broker.policy(cards.map(rule).join("\n"));
  // The program may have to be built first.
}, 2 * BOOT_LIMIT);

afterEach(() => broker.endAll(), MINUTES);

afterAll(async () => {
  await broker.give();
  await shell(guest, `rm -rf /run/bifurcate ${PROGRAM}`);
  await takeDown(guest, igb);
}, MINUTES);

describe("the holder of a card that was lent", () => {
  it(
    "attaches to no other address space, and finds nothing that maps memory",
    async () => {
      await broker.start();
      const tries = async (): Promise<Tried> => {
        const line = await broker.tool([PROGRAM, broker.socket, cards[0]!], /\{"spaces".*\}/);
        return JSON.parse(line) as Tried;
      };
      const alone = await tries();
      // Its own, so that it is known that the try works.
      expect(alone.spaces.length).toBeGreaterThan(0);
      expect(alone).toMatchObject({
        iommufd: EACCES,
        bind: EINVAL,
        mapByIommufd: ENOTTY,
        getDevice: ENOTTY,
      });
      await broker.killClients();
      expect(await broker.free()).toBe(true);
      // The other card's space is no further one.
      const [, other] = await broker.client({ spec: `pci:${cards[1]!},via=broker,ringSize=64,frames=512` });
      expect(other).toMatchObject({ event: "open" });
      expect((await tries()).spaces).toEqual(alone.spaces);
    },
    MINUTES,
  );

  it(
    "reaches nothing but its own memory file: the IOMMU stops a wrong address",
    async () => {
      await broker.start();
      await shell(guest, "dmesg -c > /dev/null");
      await broker.tool([PROGRAM, broker.socket, cards[0]!], /\{"ready":true\}/);
      expect(await faults(guest, igb)).toMatch(/DMAR: \[DMA Write[^\n]*fault addr 0x100000/);
    },
    MINUTES,
  );

  it(
    "cannot resize the memory",
    async () => {
      await broker.start();
      const line = await broker.tool([PROGRAM, broker.socket, cards[0]!], /\{"spaces".*\}/);
      expect(JSON.parse(line)).toMatchObject({ shrink: EPERM, grow: EPERM });
    },
    MINUTES,
  );
});
