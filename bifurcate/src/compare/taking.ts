// A card for the time of a measurement: taken from its kernel driver, and given back whatever happens.

import { setTimeout as delay } from "node:timers/promises";
import { BifurcateError } from "@bifurcate/control/errors";
import { giveCard } from "@bifurcate/control/card/give";
import { protectsMemory } from "@bifurcate/control/card/mechanism";
import { takeCard } from "@bifurcate/control/card/take";
import type { Means } from "./means.js";

/** How long a process that had the card may need to be gone, in tries and milliseconds between them. */
const TRIES = 50;
const BETWEEN_MS = 100;

/** @throws what takeCard, giveCard and `use` throw. */
export async function whileTaken<T>(
  { address, via }: Extract<Means, { kind: "taken" }>,
  use: () => Promise<T>,
): Promise<T> {
  takeCard({ address, via, force: false, noMemoryProtection: !protectsMemory(via) });
  try {
    return await use();
  } finally {
    await give(address);
  }
}

async function give(address: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await giveCard(address);
      return;
    } catch (thrown) {
      const busy = thrown instanceof BifurcateError && thrown.code === "E_CARD_BUSY";
      if (!busy || tries === TRIES) throw thrown;
      await delay(BETWEEN_MS);
    }
  }
}
