// The machine's own kernel, by the native addon.
import { createRequire } from "node:module";
import { BifurcateError, messageOf } from "./errors.js";
import type { Kernel } from "./kernel.js";

let kernel: Kernel | null = null;

/** The kernel of this machine; E_NO_ADDON where the addon cannot be loaded. */
export function nativeKernel(): Kernel {
  if (kernel !== null) return kernel;
  try {
    const addon = createRequire(import.meta.url)("@bifurcate/addon") as { NativeKernel: new () => Kernel };
    kernel = new addon.NativeKernel();
    return kernel;
  } catch (thrown) {
    throw new BifurcateError("E_NO_ADDON", {
      what: "load the native part of bifurcate",
      why: messageOf(thrown),
      cause: thrown,
    });
  }
}
