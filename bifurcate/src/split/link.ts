// Waits for the link of a card whose driver closes and opens the device when a program comes.

import type { AddonNetns } from "./path.js";

/** Autonegotiation of a gigabit link takes 2 to 4 s (IEEE 802.3, clause 28); a card that trains longer has a minute. */
const LINK_MS = 60_000;

/**
 * Resolves with true when the interface has its link (or is gone, which others find out), and with false when it has
 * none for a minute. Told by the kernel, not asked again and again.
 */
export async function linkIsBack(netns: AddonNetns, ifindex: number, patience = LINK_MS): Promise<boolean> {
  const away = (): boolean => netns.links().find(({ index }) => index === ifindex)?.carrier === false;
  if (!away()) return true;
  return new Promise((resolve, reject) => {
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      watch.close();
      settle();
    };
    const look = (): void => {
      try {
        if (!away()) end(() => resolve(true));
      } catch (thrown) {
        end(() => reject(thrown as Error));
      }
    };
    const timer = setTimeout(() => end(() => resolve(false)), patience);
    const watch = netns.watchLinks((event) => {
      if (event.ifindex === ifindex) look();
    });
    // It may have come back before the watch began.
    look();
  });
}
