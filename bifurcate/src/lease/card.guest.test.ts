// Cards leased whole, by VFIO behind an IOMMU: the broker as its own user, clients as nobody, both ends killed.
import type { Guest } from "@bifurcate/lab/guest/guest";
import type { GuestProcess } from "@bifurcate/lab/guest/guest-process";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { NOBODY, OTHER } from "../testing/broker.js";
import { GuestBroker, type CardEvent } from "../testing/guest-broker.js";
import { bringExample, pciOf, withFunction } from "../testing/guest-card.js";
import { answers, faults, pings, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;
/** Nothing at all: /proc/PID/status of a process without any capability. */
const NO_CAPABILITY = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(
  (name) => `${name}:\t0000000000000000`,
);

let guest: Guest;
let igb: Wire;
let broker: GuestBroker;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  igb = await bringUp(guest, "nic0");
  broker = new GuestBroker(guest);
  await broker.prepare();
}, BOOT_LIMIT);

afterEach(() => broker.endAll(), MINUTES);

afterAll(async () => {
  await broker.give();
  await shell(guest, "rm -rf /run/bifurcate");
  await takeDown(guest, igb);
}, MINUTES);

const lease = (card: string, uid?: number, stubborn = false): Promise<[GuestProcess, CardEvent]> =>
  broker.client({ spec: `pci:${card},via=broker,ringSize=64,frames=512`, stubborn }, uid);

describe("a virtual function that is leased whole", () => {
  it(
    "is driven by a user without any capability, while the kernel keeps its card",
    async () => {
      await withFunction(guest, igb, ["vfio"], async ([row]) => {
        await broker.offer(row!.address);
        // Its limit of locked memory is of no account: it has CAP_IPC_LOCK, and the client's is never asked.
        await broker.start("prlimit", "--memlock=1048576:1048576");
        const [client, opened] = await lease(row!.address);
        expect(opened).toMatchObject({ event: "open", uid: NOBODY, caps: NO_CAPABILITY });
        expect(await pings(guest, igb, row!.target)).toBe(3);
        expect(await pings(guest, igb)).toBe(3);
        client.kill("SIGTERM");
        await broker.event(client, "end");
        expect(await broker.free()).toBe(true);
        await broker.give();
      });
    },
    MINUTES,
  );
});

describe("a card that is leased whole", () => {
  let card: string;

  beforeAll(() => {
    card = pciOf(guest, "nic0");
  });

  it(
    "is driven by a user without any capability, is nobody else's meanwhile, and free when it is given back",
    async () => {
      await broker.offer(card);
      await broker.start();
      const [client, opened] = await lease(card);
      expect(opened).toMatchObject({ event: "open", uid: NOBODY, caps: NO_CAPABILITY });
      expect(await pings(guest, igb)).toBe(3);
      expect(await broker.leases()).toMatchObject([
        { id: opened.id, device: card, mechanism: "vfio", state: "granted", uid: NOBODY, flows: [] },
      ]);
      const [, refused] = await lease(card, OTHER);
      expect(refused).toMatchObject({ event: "refused", code: "E_CARD_BUSY" });
      client.kill("SIGTERM");
      const { received, sent } = await broker.event(client, "end");
      expect([received, sent].every((count) => Number(count) >= 3)).toBe(true);
      expect(await broker.free()).toBe(true);
    },
    MINUTES,
  );

  it(
    "is driven by a client in Rust, which needs no Node and no capability, and gives it back when it is done",
    async () => {
      await broker.offer(card);
      await broker.start();
      const echo = await bringExample(guest, "bifurcate-client", "echo");
      const [client, { event, mac, pid }] = await broker.leasing([echo, card, "3"]);
      expect([event, mac]).toEqual(["lease", igb.nic.mac]);
      const status = await shell(guest, `cat /proc/${pid!}/status`);
      for (const line of NO_CAPABILITY) expect(status).toContain(line);
      const ask = (word: string): string =>
        `exec 3<>/dev/udp/${igb.nic.v4}/7777; echo ${word} >&3; timeout 60 dd bs=64 count=1 status=none <&3`;
      for (const word of ["one", "two", "three"]) {
        const said = await shell(guest, `ip netns exec ${igb.far.netns} bash -c '${ask(word)}'`);
        expect(said).toBe(`${word}\n`);
      }
      const { received, sent } = await broker.event(client, "end");
      expect([received! >= 3, sent]).toEqual([true, 3]);
      expect(await broker.free()).toBe(true);
    },
    MINUTES,
  );

  it(
    "reaches no memory from the moment that it is taken back, whoever still drives it, and drains until it is closed",
    async () => {
      await broker.offer(card);
      await broker.start();
      const [client, { id }] = await lease(card, NOBODY, true);
      expect(await pings(guest, igb)).toBe(3);
      await shell(guest, "dmesg -c > /dev/null");
      const said = await broker.release(id!);
      expect(said).toContain(`${card} reaches no memory but its client's, if that`);
      expect(await broker.event(client, "lost")).toMatchObject({ code: "E_LEASE_REVOKED" });
      expect(await broker.states()).toEqual(["draining"]);
      // It is not stopped yet: what comes in it tries to write, and the IOMMU stops it.
      expect(await answers(guest, igb)).toBe(false);
      expect(await faults(guest, igb)).toMatch(/DMAR: \[DMA (Read|Write)/);
      client.kill("SIGTERM");
      await broker.event(client, "end");
      expect(await broker.free()).toBe(true);
      // Whatever state it was left in, the next one has it from the beginning.
      expect((await lease(card, OTHER))[1]).toMatchObject({ event: "open", uid: OTHER });
      expect(await pings(guest, igb)).toBe(3);
    },
    MINUTES,
  );

  it(
    "is free when its client is killed; goes on when the broker is, and the next one adopts it",
    async () => {
      await broker.offer(card);
      await broker.start();
      const [first] = await lease(card);
      first.kill("SIGKILL");
      await first.ended;
      expect(await broker.free()).toBe(true);
      const [client, { id }] = await lease(card);
      expect(await pings(guest, igb)).toBe(3);
      await broker.kill();
      expect(await pings(guest, igb)).toBe(3);
      expect(await broker.start()).toContain("adopted 1 leases, ended 0");
      expect(await broker.states()).toEqual(["granted"]);
      expect(await pings(guest, igb)).toBe(3);
      await broker.release(id!);
      expect(await broker.event(client, "lost")).toMatchObject({ code: "E_LEASE_REVOKED" });
      await broker.event(client, "end");
      expect(await broker.free()).toBe(true);
      // Both at once: nothing is left but a record, which the next one takes away.
      const [last] = await lease(card);
      await broker.kill();
      last.kill("SIGKILL");
      await last.ended;
      expect(await broker.start()).toContain("adopted 0 leases, ended 1");
      expect(await broker.free()).toBe(true);
    },
    MINUTES,
  );

  it(
    "is refused where root has not prepared it",
    async () => {
      await broker.offer(card);
      await broker.start();
      const files = (owner: string): string =>
        `for f in /dev/vfio/devices/* /dev/vfio/[0-9]*; do chown ${owner} $f; done`;
      await shell(guest, files("0"));
      const [, closed] = await lease(card);
      expect(closed).toMatchObject({ event: "refused", code: "E_CARD_NOT_TAKEN" });
      await broker.give();
    },
    MINUTES,
  );
});

describe("cards of other drivers", () => {
  it.each(["nic1", "nic2"])(
    "are leased whole too: %s",
    async (name) => {
      const wire = await bringUp(guest, name);
      const card = pciOf(guest, name);
      try {
        await broker.offer(card);
        await broker.start();
        const [client, opened] = await lease(card);
        expect(opened).toMatchObject({ event: "open", caps: NO_CAPABILITY });
        expect(await pings(guest, wire)).toBe(3);
        client.kill("SIGTERM");
        await broker.event(client, "end");
        expect(await broker.free()).toBe(true);
      } finally {
        await broker.give();
        await takeDown(guest, wire);
      }
    },
    MINUTES,
  );
});
