// Fills the cache for kernels ahead of use, so that guests boot offline afterwards.

import { pruneCache, type Say } from "./cache.js";
import { igbUioModule } from "./igb-uio.js";
import { KERNELS, type KernelName } from "./machine.js";
import { allRecipes, provision } from "./provision.js";

/** Makes what is missing for these kernels; all of them when none is named. Throws what provision() throws. */
export async function fetchGuests(kernels: readonly KernelName[], say: Say): Promise<void> {
  for (const kernel of kernels.length === 0 ? KERNELS : kernels) {
    await provision(kernel, say);
    if (kernel === "lab") await igbUioModule(say);
    say(`${kernel}: in the cache`);
  }
}

/** Removes entries of the cache that an earlier version made, and that no guest of this one uses. */
export async function pruneGuests(say: Say): Promise<void> {
  await pruneCache(await allRecipes(), say);
}
