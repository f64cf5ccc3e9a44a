// What is known of drivers beyond what they tell: limits of XDP, and what attaching a program costs.

/** One driver's ways with XDP. Each entry names the kernel source that it was read from. */
export interface DriverNotes {
  /** Largest MTU with a one-buffer XDP program, bytes; null where there is no limit of the driver's own. */
  readonly maxMtu: number | null;
  /** Attaching or detaching a program takes the link down for a moment. */
  readonly bounces: boolean;
  /** Attaching a program changes the number of receive queues: read it after, not before. */
  readonly changesQueues?: true;
  /** Why bounces, or what else to expect; one sentence, or null. */
  readonly expect: string | null;
}

/**
 * Drivers by `ethtool -i` name; files are those of drivers/net in Linux. MTUs are for 4 KiB pages on x86-64, where
 * struct skb_shared_info takes 320 bytes.
 */
const DRIVERS: Readonly<Record<string, DriverNotes>> = {
  // veth.c veth_xdp_set(): one page less headroom, shared info and Ethernet header; the peer's software GSO
  // is taken away while a program without fragments is attached.
  veth: {
    maxMtu: 3506,
    bounces: false,
    expect: "the veth peer sends without TSO for as long as the split lives",
  },
  // virtio_net.c virtnet_xdp_set(): PAGE_SIZE less room and ETH_HLEN. A queue a processor is added for XDP_TX where the
  // device has so many, and the host sends to those too.
  virtio_net: {
    maxMtu: 3506,
    bounces: false,
    changesQueues: true,
    expect:
      "receive checksum and GRO offloads of the host are off for as long as the split lives, " +
      "and a device with queues to spare uses one more for each processor",
  },
  // intel/igb/igb_main.c igb_xdp_setup(): the frame has to fit a receive buffer (3,072 bytes at most, less
  // Ethernet header, FCS and two VLAN tags); igb_close() and igb_open() around the change.
  igb: {
    maxMtu: 3046,
    bounces: true,
    expect: "igb closes and reopens the device when a program comes or goes",
  },
  // intel/igc/igc_xdp.c igc_xdp_set_prog(): no jumbo frames; igc_close() and igc_open().
  igc: {
    maxMtu: 1500,
    bounces: true,
    expect: "igc closes and reopens the device when a program comes or goes",
  },
  // intel/ixgbe/ixgbe_main.c ixgbe_max_xdp_frame_size(): 3,072 less IXGBE_PKT_HDR_PAD; ixgbe_xdp_setup() sets
  // the queues up anew.
  ixgbe: {
    maxMtu: 3046,
    bounces: true,
    expect: "ixgbe sets its queues up anew when a program comes or goes",
  },
  // intel/i40e/i40e_main.c i40e_xdp_setup(): i40e_prep_for_reset() and i40e_reset_and_rebuild().
  i40e: { maxMtu: 3046, bounces: true, expect: "i40e resets the function when a program comes or goes" },
  // intel/ice/ice_main.c ice_xdp_setup_prog(): ice_down() and ice_up().
  ice: {
    maxMtu: 3046,
    bounces: true,
    expect: "ice takes the interface down and up when a program comes or goes",
  },
  // mellanox/mlx5/core/en_main.c mlx5e_xdp_set(): channels are opened anew. en/xdp.c mlx5e_xdp_max_mtu(): a page less
  // headroom (256) and shared info, less MLX5E_ETH_HARD_MTU (Ethernet header, a VLAN tag, FCS). Programs that take fragments
  // have no limit since Linux 6.4 (f52ac7028bec; since 5.18 where the receive queue does not stride), which rx-sg tells.
  mlx5_core: { maxMtu: 3498, bounces: false, expect: "mlx5 opens its channels anew; some packets are lost" },
  // google/gve/gve_main.c gve_verify_xdp_configuration(): a receive buffer (2,048 bytes) less Ethernet header, and in the
  // queue format GQI less GVE_RX_PAD (2); the card does not tell its format, so this is the smaller limit of both.
  // gve_set_xdp(): gve_adjust_config(), which is gve_close() and gve_open().
  gve: {
    maxMtu: 2032,
    bounces: true,
    expect: "gve closes and reopens the device when a program comes or goes",
  },
  // broadcom/bnxt/bnxt_xdp.c bnxt_xdp_set(): BNXT_MAX_PAGE_MODE_MTU (bnxt.h); the NIC is closed and opened.
  bnxt_en: {
    maxMtu: 3502,
    bounces: true,
    expect: "bnxt closes and reopens the NIC when a program comes or goes",
  },
  // amazon/ena/ena_xdp.h ENA_XDP_MAX_MTU.
  ena: { maxMtu: 3498, bounces: true, expect: "ena sets its queues up anew when a program comes or goes" },
  // vmxnet3_xdp.h VMXNET3_XDP_MAX_MTU: PAGE_SIZE less headroom, shared info, FCS and headers.
  vmxnet3: { maxMtu: 3494, bounces: true, expect: "vmxnet3 resets the device when a program comes or goes" },
  // tun.c: XDP runs when the frame is written; no limit beyond a page.
  tun: { maxMtu: null, bounces: false, expect: null },
};

/** Drivers of Linux 7.3 that have queue management operations, which queue leases need: net_device.queue_mgmt_ops. */
export const LEASING_DRIVERS: readonly string[] = ["bnxt_en", "fbnic", "gve", "mlx5_core", "netdevsim"];

const UNKNOWN: DriverNotes = { maxMtu: null, bounces: false, expect: null };

/** What is known of a driver; nothing in particular for one that the table lacks. */
export function driverNotes(driver: string): DriverNotes {
  return DRIVERS[driver] ?? UNKNOWN;
}
