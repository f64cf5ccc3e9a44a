// A card taken whole with an exception path: the handler has its flow, and the kernel is reached as before.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { RunningSplit, endAll } from "@bifurcate/lab/harness";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { countAnswers } from "../testing/echo-requests.js";
import { pciOf } from "../testing/guest-card.js";
import { pings, resolves, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;

let guest: Guest;
let e1000e: Wire;

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  e1000e = await bringUp(guest, "nic1");
}, BOOT_LIMIT);

afterEach(() => endAll());

afterAll(async () => {
  await shell(guest, "rm -rf /run/bifurcate/cards");
  await takeDown(guest, e1000e);
});

describe("a card taken whole with an exception path", () => {
  it(
    "gives the handler its flow alone, and the kernel answers ping and sends through a TAP of the card's name",
    async () => {
      const address = pciOf(guest, "nic1");
      await shell(guest, `bifurcate take ${address}`);
      const words = ["--flow", "udp dst port 53", "--exception", "--do", "run=examples/dns.ts", "--json"];
      const port = new RunningSplit(guest.start(["bifurcate", "open", `pci:${address}`, ...words]));
      await port.event("open");
      expect(await shell(guest, "ip -o link show dev nic1")).toContain(e1000e.nic.mac);
      expect(await shell(guest, "ip -o addr show dev nic1")).toContain(e1000e.nic.v4);
      // First what waits long enough for the handler's thread, which comes up slowly in software emulation.
      await resolves(guest, e1000e, e1000e.nic.v4);
      expect(await pings(guest, e1000e)).toBe(3);
      // From here to there: the request leaves by the card, and the answer comes back through the TAP.
      expect(Number(await shell(guest, countAnswers(e1000e.far.v4)))).toBe(3);
      const { status } = await port.end("SIGTERM");
      expect(status).toBe(0);
      await shell(guest, `bifurcate give ${address}`);
      expect(await shell(guest, "ip -o addr show dev nic1")).toContain(e1000e.nic.v4);
    },
    MINUTES,
  );
});
