// A card taken whole with an exception path: the handler has its flow, and the kernel is reached as before.
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT, sharedGuest } from "@bifurcate/lab/guest/shared";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { RunningSplit, endAll } from "@bifurcate/lab/harness";
import type { PortCard, PortPath, PortStats } from "bifurcate";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { countAnswers } from "../testing/echo-requests.js";
import { pciOf } from "../testing/guest-card.js";
import { pings, resolves, shell } from "../testing/guest-split.js";

const MINUTES = 600_000;

let guest: Guest;
let igb: Wire;
let e1000e: Wire;
/** Cards that a test has taken and not given back. */
const taken = new Set<string>();

beforeAll(async () => {
  guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  igb = await bringUp(guest, "nic0");
  e1000e = await bringUp(guest, "nic1");
}, BOOT_LIMIT);

afterEach(async () => {
  await endAll();
  for (const address of taken) await giveBack(address);
});

afterAll(async () => {
  await shell(guest, "rm -rf /run/bifurcate/cards");
  await takeDown(guest, igb);
  await takeDown(guest, e1000e);
});

/** Takes a card and opens it for the DNS example, with the flow and an exception path; gives what is said of its path. */
async function serveDns(address: string, keys: string, flow: string): Promise<[RunningSplit, PortPath]> {
  await shell(guest, `bifurcate take ${address}`);
  taken.add(address);
  const words = ["--flow", flow, "--exception", "--do", "run=examples/dns.ts", "--json"];
  const port = new RunningSplit(guest.start(["bifurcate", "open", `pci:${address}${keys}`, ...words]));
  const { path } = await port.event("open");
  return [port, path as PortPath];
}

async function giveBack(address: string): Promise<void> {
  taken.delete(address);
  await shell(guest, `bifurcate give ${address}`);
}

describe("a card taken whole with an exception path", () => {
  it(
    "gives the handler its flow alone, and the kernel answers ping and sends through a TAP of the card's name",
    async () => {
      const address = pciOf(guest, "nic1");
      const [port] = await serveDns(address, "", "udp dst port 53");
      expect(await shell(guest, "ip -o link show dev nic1")).toContain(e1000e.nic.mac);
      expect(await shell(guest, "ip -o addr show dev nic1")).toContain(e1000e.nic.v4);
      // First what waits long enough for the handler's thread, which comes up slowly in software emulation.
      await resolves(guest, e1000e, e1000e.nic.v4);
      expect(await pings(guest, e1000e)).toBe(3);
      // From here to there: the request leaves by the card, and the answer comes back through the TAP.
      expect(Number(await shell(guest, countAnswers(e1000e.far.v4)))).toBe(3);
      const { status } = await port.end("SIGTERM");
      expect(status).toBe(0);
      await giveBack(address);
      expect(await shell(guest, "ip -o addr show dev nic1")).toContain(e1000e.nic.v4);
    },
    MINUTES,
  );

  // The emulation takes the filter and steers by RSS alone: the program of each queue decides, as it does behind a
  // card that obeys.
  it(
    "has the card send the flow to a queue of several where it has a filter, with the same verdicts on each of them",
    async () => {
      const address = pciOf(guest, "nic0");
      const flow = "ip and udp dst port 53";
      const [port, { notes, queues }] = await serveDns(address, ",queues=2,ringSize=64", flow);
      expect(notes).toContain(`the card sends '${flow}' to queue 0`);
      expect(queues).toEqual([0, 1]);
      await resolves(guest, igb, igb.nic.v4);
      expect(await pings(guest, igb)).toBe(3);
      const { status } = await port.end("SIGTERM");
      expect(status).toBe(0);
      const { stats, card } = (await port.event("end")) as unknown as { stats: PortStats; card: PortCard };
      expect(stats.passed).toBeGreaterThanOrEqual(3);
      expect(card).toMatchObject({ driver: "igb", mac: igb.nic.mac, link: { up: true, duplex: "full" } });
      // What the card itself has counted: DNS and ping, in and out.
      expect(card.statistics["rx_packets"]).toBeGreaterThanOrEqual(4);
      expect(card.statistics["tx_packets"]).toBeGreaterThanOrEqual(4);
      expect(card.statistics).toMatchObject({ rx_queue_0_drops: 0, rx_queue_1_drops: 0 });
      await giveBack(address);
      expect(await shell(guest, "ip -o addr show dev nic0")).toContain(igb.nic.v4);
    },
    MINUTES,
  );
});
