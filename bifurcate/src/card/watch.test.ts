// A port whose card goes, or goes astray, ends with an error that says so.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Port } from "../port.js";
import { watchCard } from "./watch.js";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

function watched(card: { state: string; fault: string | null }) {
  const failures: { code: string; why: string }[] = [];
  const port = {
    name: "0000:01:00.0",
    fail: (error: { code: string; why: string }) => failures.push({ code: error.code, why: error.why }),
  } as unknown as Port;
  const watch = watchCard(port, { state: () => card.state, dmaFault: () => card.fault });
  return { failures, watch };
}

it("lets a card be that is there, and whose link is down", () => {
  const card = { state: "up", fault: null };
  const { failures } = watched(card);
  vi.advanceTimersByTime(1000);
  card.state = "down";
  vi.advanceTimersByTime(1000);
  expect(failures).toEqual([]);
});

it("ends the port once when the card is gone", () => {
  const card = { state: "up", fault: null };
  const { failures } = watched(card);
  card.state = "gone";
  vi.advanceTimersByTime(2000);
  expect(failures).toMatchObject([{ code: "E_CARD_GONE" }]);
});

it("says what the IOMMU stopped", () => {
  const fault = "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x5a000000";
  const { failures } = watched({ state: "up", fault });
  vi.advanceTimersByTime(2000);
  expect(failures).toEqual([{ code: "E_CARD_ASTRAY", why: fault }]);
});

it("looks no more when it is stopped", () => {
  const card = { state: "up", fault: null };
  const { failures, watch } = watched(card);
  watch.stop();
  card.state = "gone";
  vi.advanceTimersByTime(2000);
  expect(failures).toEqual([]);
});
