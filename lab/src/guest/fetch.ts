// Fills the cache for kernels ahead of use, so that guests boot offline afterwards.

import type { Say } from "./cache.js";
import { igbUioModule } from "./igb-uio.js";
import { KERNELS, type KernelName } from "./machine.js";
import { provision } from "./provision.js";

/** Makes what is missing for these kernels; all of them when none is named. Throws what provision() throws. */
export async function fetchGuests(kernels: readonly KernelName[], say: Say): Promise<void> {
  for (const kernel of kernels.length === 0 ? KERNELS : kernels) {
    await provision(kernel, say);
    if (kernel === "lab") await igbUioModule(say);
    say(`${kernel}: in the cache`);
  }
}
