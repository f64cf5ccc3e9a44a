// A card that is leased and cannot be opened: what was passed is closed, and the lease is given back.
import { beforeEach, expect, it, vi } from "vitest";
import { openCard } from "./open.js";

const seen = vi.hoisted(() => ({
  did: [] as string[],
  asked: "",
  open: (() => ({})) as () => object,
  /** Taken back together with the grant. */
  revoked: false,
}));
const did = (what: string) => () => {
  seen.did.push(what);
  return Promise.resolve();
};

vi.mock("@bifurcate/addon", async (original) => ({
  ...(await original<object>()),
  openLentCard: () => seen.open(),
}));
vi.mock("@bifurcate/control/protocol/client", async (original) => ({
  ...(await original<object>()),
  BrokerConnection: {
    connect: () => {
      seen.did.push("connected");
      return Promise.resolve({
        leaseCard: ({ device }: { device: string }) => {
          seen.asked = device;
          return Promise.resolve({
            lease: { id: "lease-1", device, card: {}, notes: [], bypasses: [] },
            device: { number: 3, close: did("card closed") },
            memory: { number: 4, close: did("memory closed") },
          });
        },
        follow: ({ revoked }: { revoked: (lease: string, why: string) => void }) => {
          if (seen.revoked) queueMicrotask(() => revoked("lease-1", "root took it back"));
        },
        return: did("returned"),
        close: did("disconnected"),
      });
    },
  },
}));

beforeEach(() => {
  seen.did.length = 0;
  seen.revoked = false;
});

it("is not even leased for a flow that is none", async () => {
  seen.open = () => ({});
  const opened = openCard("pci:0000:01:00.0,via=broker", { flows: ["udp dst prot 53"] });
  await expect(opened).rejects.toMatchObject({ code: "E_FLOW_SYNTAX" });
  expect(seen.did).toEqual([]);
});

it("is closed, with its memory, when it cannot be opened", async () => {
  seen.open = () => {
    throw Object.assign(new Error("it does not start"), { code: "EIO" });
  };
  await expect(openCard("pci:0000:01:00.0,via=broker")).rejects.toMatchObject({ code: "E_CARD_FAILED" });
  expect(seen.did).toEqual(["connected", "card closed", "memory closed", "disconnected"]);
});

it("is closed, and its lease given back, when no port can be made of it", async () => {
  seen.open = () => ({
    queues: 1,
    get obtained(): never {
      throw new Error("it went");
    },
    close: did("card and memory closed"),
  });
  await expect(openCard("pci:0000:01:00.0,via=broker")).rejects.toThrow("it went");
  expect(seen.did).toEqual(["connected", "card and memory closed", "returned", "disconnected"]);
});

it("is asked for by its address in full, as the policy writes it", async () => {
  seen.open = () => {
    throw new Error("it is not opened here");
  };
  for (const [word, device] of [
    ["0:1:0.0", "0000:01:00.0"],
    ["1:1F.7", "0000:01:1f.7"],
    ["A:2b:03.1", "000a:2b:03.1"],
  ] as const) {
    await expect(openCard(`pci:${word},via=broker`)).rejects.toThrow("not opened");
    expect(seen.asked).toBe(device);
  }
});

it("is known to be taken back when that came together with the lease", async () => {
  seen.revoked = true;
  const none = () => Promise.resolve([]);
  const stats = () => ({ total: {}, queues: [] });
  seen.open = () => ({ queues: 1, obtained: { refused: [] }, stats, stop: none, close: none });
  const said: string[] = [];
  const port = await openCard("pci:0000:01:00.0,via=broker", { onWarning: (words) => said.push(words) });
  await expect
    .poll(() => said, { timeout: 50_000 })
    .toEqual(["the lease lease-1 was taken back: root took it back"]);
  await port.close();
  expect(seen.did).toEqual(["connected", "disconnected"]);
});
