// AF_XDP: rings of a socket on a queue, filled by an XDP program in the driver, with and without a copy.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

const AF_XDP = "Documentation/networking/af_xdp.rst";

export const afXdpCopy: Known = {
  upstream: fact("in tree since Linux 4.18", "net/xdp/xsk.c; " + AF_XDP),
  kernelNetdev: fact(
    "yes: the program redirects the chosen frames, everything else goes on to the stack",
    AF_XDP,
  ),
  vm: fact(
    "yes: virtio_net, veth, vmxnet3 and igb run XDP in the driver, others after it (generic)",
    "drivers/net/virtio_net.c; docs/lab.md",
  ),
  ethernet: fact("yes, whole frames", AF_XDP),
  hardware: fact("none: any card; cheaper where the driver runs XDP itself", AF_XDP),
  security: fact(
    "CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF to set up, none to poll; the kernel copies into registered memory alone",
    AF_XDP + "; docs/broker.md",
  ),
  performance: fact("no sk_buff in driver mode, one copy a frame, no system call for each frame", AF_XDP),
};

export const afXdpZeroCopy: Known = {
  upstream: fact(
    "in tree; the driver has to have it: i40e and ixgbe since Linux 4.20, mlx5 since 5.3, ice since 5.5, virtio_net since 6.13, igb since 6.14",
    AF_XDP +
      ", XDP_ZEROCOPY; docs.ebpf.io, BPF_PROG_TYPE_XDP, Driver support (commits 0a714186d3c0, d0bcacd0a130 and on)",
  ),
  kernelNetdev: fact(
    "yes, with a queue of its own: on a shared queue the card would write the kernel's frames into user memory",
    "docs/decisions/0025-own-queue-only-by-rule.md",
  ),
  vm: fact(
    "virtio_net with VIRTIO_F_ACCESS_PLATFORM, an emulated igb, or a function passed through whose driver has it",
    "drivers/net/virtio_net.c, virtnet_xsk_pool_enable; docs/lab.md",
  ),
  ethernet: fact("yes, whole frames", AF_XDP),
  hardware: fact(
    "a card whose driver has xsk zero-copy; to share it with the kernel also ntuple rules",
    "Documentation/netlink/specs/netdev.yaml, xdp-features: xsk-zerocopy",
  ),
  security: fact(
    "the driver maps the pool for DMA and checks addresses; the process has neither registers nor descriptor rings of the card",
    "net/xdp/xsk_buff_pool.c",
  ),
  performance: fact("no sk_buff and no copy; the driver puts addresses into the rings", AF_XDP),
};
