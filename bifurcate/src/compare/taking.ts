// A card for the time of a measurement: taken from its kernel driver, and given back whatever happens.

import { giveCard } from "@bifurcate/control/card/give";
import { protectsMemory } from "@bifurcate/control/card/mechanism";
import { takeCard } from "@bifurcate/control/card/take";
import type { Means } from "./means.js";

/**
 * `use` has ended its processes when it resolves; giveCard waits for what the kernel, or a guardian, still does for them.
 * @throws what takeCard, giveCard and `use` throw.
 */
export async function whileTaken<T>(
  { address, via }: Extract<Means, { kind: "taken" }>,
  use: () => Promise<T>,
): Promise<T> {
  takeCard({ address, via, force: false, noMemoryProtection: !protectsMemory(via) });
  try {
    return await use();
  } finally {
    await giveCard(address);
  }
}
