// What a port says of its card, on an addon made of plain values.
import { expect, it } from "vitest";
import type { NativeCard, NativePort } from "../native.js";
import { Port } from "../port.js";
import { readCard } from "./facts.js";

const count = (name: string, value: number) => ({ name, meaning: "", value });

const CARD: NativeCard = {
  driver: "igb",
  mac: "02:00:00:00:00:01",
  link: { up: true, speed: 1000, fullDuplex: true },
  statistics: [count("GPRC", 7), count("MPC", 3), count("RQDPC", 0), count("RQDPC", 37), count("NEW", 1)],
};

/** A port's native half that has this card until it is closed. */
function native(card: NativeCard | null): NativePort {
  let open = true;
  return {
    stats: () => ({ total: {}, queues: [] }),
    stop: () => Promise.resolve([]),
    close: () => ((open = false), Promise.resolve([])),
    card: () => (open ? card : null),
  } as unknown as NativePort;
}

function portOver(card: NativeCard | null): Port {
  return new Port(
    { native: native(card), name: "a card" } as never,
    { path: {}, close: (shut: () => unknown) => shut() } as never,
  );
}

it("names a card's counters as ethtool does, those of a queue with its number, and one without a name as the datasheet", () => {
  expect(readCard(native(CARD))).toEqual({
    driver: "igb",
    mac: "02:00:00:00:00:01",
    link: { up: true, speed: 1000, duplex: "full" },
    statistics: { rx_packets: 7, rx_missed_errors: 3, rx_queue_0_drops: 0, rx_queue_1_drops: 37, NEW: 1 },
  });
});

it("has no speed for a link that is down, or of a card that does not say", () => {
  const link = (now: NativeCard["link"]) => readCard(native({ ...CARD, link: now }))?.link;
  expect(link({ up: false, speed: 0, fullDuplex: false })).toEqual({ up: false, speed: null, duplex: null });
  expect(link({ up: true, speed: 0, fullDuplex: false })).toEqual({ up: true, speed: null, duplex: "half" });
});

it("stays with a port after its close, as it was then; a port over no card of ours has none", async () => {
  const port = portOver(CARD);
  expect(port.card?.statistics["rx_packets"]).toBe(7);
  await port.close();
  expect(port.card?.statistics["rx_packets"]).toBe(7);
  const other = portOver(null);
  expect(other.card).toBeNull();
  await other.close();
  expect(other.card).toBeNull();
});
