// What a card of our own driver says of itself: its link, and its counters by the names that `ethtool -S` has.

import type { NativeCard, NativePort } from "../native.js";

/** A card that our own driver has. */
export interface PortCard {
  /** Our driver: "igb", "igbvf", "e1000e" or "virtio". */
  readonly driver: string;
  readonly mac: string;
  /** `speed` in Mb/s; null, as `duplex`, while there is no link or where the card does not say. */
  readonly link: {
    readonly up: boolean;
    readonly speed: number | null;
    readonly duplex: "full" | "half" | null;
  };
  /** What the card itself has counted since it was opened, e.g. `rx_missed_errors`; empty for virtio, which does not count. */
  readonly statistics: Readonly<Record<string, number>>;
}

/**
 * The datasheets' registers by the names that the kernel's igb and e1000e give them (igb_gstrings_stats of
 * drivers/net/ethernet/intel/igb/igb_ethtool.c); TPR and TPT, which those do not show, as DPDK's xstats have them.
 */
const NAMES: Readonly<Record<string, string>> = {
  GPRC: "rx_packets",
  GPTC: "tx_packets",
  VFGPRC: "rx_packets",
  VFGPTC: "tx_packets",
  TPR: "rx_total_packets",
  TPT: "tx_total_packets",
  CRCERRS: "rx_crc_errors",
  MPC: "rx_missed_errors",
  RNBC: "rx_no_buffer_count",
  ROC: "rx_long_length_errors",
};

/** Of these there is one for each queue. */
const QUEUE_NAMES: Readonly<Record<string, (queue: number) => string>> = {
  RQDPC: (queue) => `rx_queue_${queue}_drops`,
};

/** What the card behind a port says now; null where no driver of ours has one, and after the close. */
export function readCard(native: NativePort): PortCard | null {
  const card = native.card?.();
  if (card == null) return null;
  const { driver, mac, link } = card;
  return {
    driver,
    mac,
    link: link.up
      ? { up: true, speed: link.speed || null, duplex: link.fullDuplex ? "full" : "half" }
      : { up: false, speed: null, duplex: null },
    statistics: named(card.statistics),
  };
}

function named(statistics: NativeCard["statistics"]): Record<string, number> {
  const seen = new Map<string, number>();
  return Object.fromEntries(
    statistics.map(({ name, value }) => {
      const queue = seen.get(name) ?? 0;
      seen.set(name, queue + 1);
      return [QUEUE_NAMES[name]?.(queue) ?? NAMES[name] ?? name, value];
    }),
  );
}
