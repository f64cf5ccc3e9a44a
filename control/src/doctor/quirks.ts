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

/** As many transmit as receive queues: each of the latter has one of the former beside it for what a program sends. */
const equalQueues =
  (source: string): Quirk =>
  ({ facts }) => {
    const { now, max } = facts.channels ?? {};
    // Of a card that counts pairs there are as many of both.
    if (now === undefined || max === undefined || max.combined > 0 || now.rx === now.tx) return [];
    const { name } = facts.link;
    const both = Math.max(1, Math.min(now.rx, now.tx, Math.floor(max.tx / 2)));
    const says = `${facts.driver.driver} takes an XDP program with as many transmit as receive queues in use, and ${now.tx} and ${now.rx} are (${source})`;
    return [finding("queues-unequal", name, says, `sudo ethtool -L ${name} rx ${both} tx ${both}`)];
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
              "igb looks at the fill ring when a zero-copy socket is bound, and not again before a frame has arrived " +
                "(bifurcate fills it first)",
              "in programs of your own put frames into the fill ring before bind(2)",
            ),
          ]
        : [],
  ],
  // amazon/ena/ena_xdp.h ena_xdp_legal_queue_count(): one TX queue for XDP beside each queue pair.
  ena: [halfTheQueues("ena_xdp.h, ena_xdp_legal_queue_count")],
  // google/gve/gve_main.c gve_verify_xdp_configuration(), verify_xdp_configuration() in older kernels.
  gve: [
    halfTheQueues("gve_main.c, gve_verify_xdp_configuration"),
    equalQueues("gve_main.c, gve_verify_xdp_configuration"),
  ],
  // None of mellanox/mlx5/core: mlx5e_open_queues() (en_main.c) gives each channel a send queue of its own for XDP, so any
  // number will do. A zero-copy socket has the number of its queue since Linux 6.1 (3db4c85cde7a); before, the number
  // of channels was added to it (en/params.h mlx5e_qid_get_ch_and_group()).
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
            `start and end splits when that does no harm, or leave the driver alone, at more cost a packet: bifurcate split ${facts.link.name} --backend af_packet`,
          ),
        ]
      : [];
  return [...(QUIRKS[facts.driver.driver] ?? []).flatMap((quirk) => quirk(card)), ...bounce];
}
