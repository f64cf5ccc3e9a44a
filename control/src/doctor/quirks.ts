// What single drivers ask for beyond the rules that hold for all. Each entry names the kernel source it was read from.
import { driverNotes } from "../steering/drivers.js";
import type { Card } from "./card.js";
import { finding, type Finding } from "./finding.js";

type Quirk = (card: Card) => Finding[];

/** A driver that needs a transmit ring of its own for each queue, out of the same number, takes half of its queues at most. */
const halfTheQueues =
  (source: string): Quirk =>
  ({ facts, queues }) => {
    const max = facts.channels === null ? 0 : facts.channels.max.combined + facts.channels.max.rx;
    if (max === 0 || queues * 2 <= max) return [];
    const { name } = facts.link;
    const kind = facts.channels!.max.combined > 0 ? "combined" : "rx";
    const half = Math.max(1, Math.floor(max / 2));
    const mend =
      kind === "combined"
        ? `sudo ethtool -L ${name} combined ${half}`
        : `sudo ethtool -L ${name} rx ${half} tx ${half}`;
    return [
      finding(
        "too-many-queues",
        name,
        `${facts.driver.driver} takes an XDP program with at most half of its ${max} queues in use, and ${queues} are ` +
          `(${source})`,
        mend,
      ),
    ];
  };

const QUIRKS: Readonly<Record<string, readonly Quirk[]>> = {
  // intel/igb/igb_xsk.c igb_alloc_rx_buffers_zc() runs at bind; the ring is looked at again only when a frame arrived.
  igb: [
    ({ facts }) =>
      facts.xdpFeatures?.features.includes("xsk-zerocopy") === true
        ? [
            finding(
              "fill-before-bind",
              facts.link.name,
              "igb looks at the fill ring when a zero-copy socket is bound, and not again before a frame has arrived: " +
                "programs of your own fill it first (bifurcate does)",
              null,
            ),
          ]
        : [],
  ],
  // amazon/ena/ena_xdp.h ena_xdp_legal_queue_count(): one TX queue for XDP beside each queue pair.
  ena: [halfTheQueues("ena_xdp.h, ena_xdp_legal_queue_count")],
  // google/gve/gve_main.c gve_verify_xdp_configuration().
  gve: [halfTheQueues("gve_main.c, verify_xdp_configuration")],
  // virtio_net.c virtnet_xsk_pool_enable(): buffers are mapped for DMA through the virtio device.
  virtio_net: [
    ({ facts, accessPlatform }) =>
      accessPlatform === false
        ? [
            finding(
              "no-iommu-platform",
              facts.link.name,
              "the virtio device was made without VIRTIO_F_ACCESS_PLATFORM: zero-copy binds end with EINVAL",
              "on the host, start the machine with -device virtio-net-pci,...,iommu_platform=on,disable-legacy=on",
            ),
          ]
        : [],
  ],
};

/** What the card's driver asks for. */
export function quirkFindings(card: Card): Finding[] {
  const { facts } = card;
  const { bounces, expect } = driverNotes(facts.driver.driver);
  const bounce =
    bounces && expect !== null
      ? [
          finding(
            "link-bounces",
            facts.link.name,
            `${expect}: a split's start and end cost a moment without link`,
            null,
          ),
        ]
      : [];
  return [...(QUIRKS[facts.driver.driver] ?? []).flatMap((quirk) => quirk(card)), ...bounce];
}
