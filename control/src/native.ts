// The machine's own kernel, by the native addon.
import type { LinkEvent, LinkWatch, NativeKernel, Netns as NativeNetns } from "@bifurcate/addon";
import { loadAddon } from "./addon.js";
import type { Kernel } from "./kernel.js";

export type { LinkEvent, LinkWatch } from "@bifurcate/addon";

let kernel: NativeKernel | null = null;

/**
 * The kernel of this machine; E_NO_ADDON where the addon cannot be loaded. That the addon has all that the
 * control path asks for, the compiler checks here.
 */
export function nativeKernel(): Kernel {
  return load();
}

/**
 * Calls `told` on the event loop for everything that happens to the interfaces of a namespace, until the
 * returned watch is closed. A watch does not keep the process alive.
 *
 * @param netns name or path of the namespace, null for the process's own
 * @throws a KernelError (no such namespace, no descriptor left), or E_NO_ADDON
 */
export function watchLinks(netns: string | null, told: (event: LinkEvent) => void): LinkWatch {
  const open = load().openNetns(netns);
  try {
    return open.watchLinks(told);
  } finally {
    open.close();
  }
}

/** This process's namespace, with what an interface's coming and going needs. */
export function nativeCardNetns(): NativeNetns {
  return load().openNetns(null);
}

function load(): NativeKernel {
  kernel ??= new (loadAddon().NativeKernel)();
  return kernel;
}
