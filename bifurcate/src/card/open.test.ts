// A card that goes while the engine's loop runs: the loop ends first, and the run still ends with the reason.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { openCard } from "./open.js";

const card = vi.hoisted(() => ({ state: "up", fault: null as string | null }));

vi.mock("@bifurcate/addon", async (original) => ({
  ...(await original<object>()),
  openPci: () => ({
    queues: 1,
    obtained: { refused: [] },
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
  Object.assign(card, { state: "up", fault: null });
});

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
