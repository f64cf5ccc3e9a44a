// Opening a card on an addon made of plain values: what is refused before it, and a card that goes while the engine's loop runs.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openCard } from "./open.js";

const card = vi.hoisted(() => ({
  state: "up",
  fault: null as string | null,
  opened: 0,
  obtained: { busyPoll: true, refused: [] as string[] },
}));

vi.mock("@bifurcate/addon", async (original) => ({
  ...(await original<object>()),
  openPci: () => ({
    queues: (card.opened++, 1),
    obtained: card.obtained,
    state: () => card.state,
    dmaFault: () => card.fault,
    // As the engine's loop, which ends by itself when its device is gone.
    runNative: () => Promise.resolve(),
    stats: () => ({ total: {}, queues: [{}] }),
    stop: () => Promise.resolve([]),
    close: () => Promise.resolve([]),
  }),
}));

// The time between two looks never passes.
beforeEach(() => vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  Object.assign(card, { state: "up", fault: null, opened: 0, obtained: { busyPoll: true, refused: [] } });
});

describe.each(["vfio-noiommu", "uio_pci_generic", "igb_uio"])(
  "a card via %s, without memory protection",
  (via) => {
    const word = `pci:0000:01:00.0,via=${via}`;

    it("is not opened until that is said by name, by root either", async () => {
      vi.spyOn(process, "geteuid").mockReturnValue(0);
      for (const said of ["", ",noMemoryProtection=no"]) {
        await expect(openCard(`${word}${said}`)).rejects.toMatchObject({
          code: "E_NO_MEMORY_PROTECTION",
          next: expect.stringContaining("noMemoryProtection=yes") as string,
        });
      }
      expect(card.opened).toBe(0);
    });

    it("is for root alone, though it is said", async () => {
      const user = vi.spyOn(process, "geteuid").mockReturnValue(1000);
      await expect(openCard(`${word},noMemoryProtection=yes`)).rejects.toMatchObject({
        code: "E_NOT_PRIVILEGED",
      });
      expect(card.opened).toBe(0);
      user.mockReturnValue(0);
      await (await openCard(`${word},noMemoryProtection=yes`)).close();
      expect(card.opened).toBe(1);
    });
  },
);

it("ends a run with E_CARD_GONE although nobody has looked since it went", async () => {
  const port = await openCard("pci:0000:01:00.0");
  card.state = "gone";
  await expect(port.runNative("count")).rejects.toMatchObject({ code: "E_CARD_GONE" });
  await port.close();
});

it("ends a run with what the IOMMU stopped", async () => {
  const port = await openCard("pci:0000:01:00.0");
  card.fault = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x5a000000";
  await expect(port.runNative("count")).rejects.toMatchObject({ code: "E_CARD_ASTRAY", why: card.fault });
  await port.close();
});

it("ends a run well while the card is there", async () => {
  const port = await openCard("pci:0000:01:00.0");
  await port.runNative("count");
  await port.close();
});

it("says of a card without an interrupt for each queue that it polls, and why, to people and to scripts", async () => {
  const why = "interrupts=yes: vfio gives the card 1 for 2 queues, which need one each; the queues poll";
  card.obtained = { busyPoll: true, refused: [why] };
  const port = await openCard("pci:0000:01:00.0,queues=2,interrupts=yes");
  expect(port.path.obtained).toMatchObject({ busyPoll: true, refused: [why] });
  expect(port.path.notes).toEqual([why]);
  await port.close();
});
