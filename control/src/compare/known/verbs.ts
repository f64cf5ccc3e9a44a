// Verbs: queue pairs of an RDMA card, which stays with the kernel; flow rules bring raw packets to them.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

const RAW = "ibv_create_qp(3), IBV_QPT_RAW_PACKET; ibv_create_flow(3)";

export const verbs: Known = {
  upstream: fact(
    "in tree (drivers/infiniband): verbs for processes since Linux 2.6.14, flow rules since 3.13; the library is rdma-core",
    "Documentation/ABI/stable/sysfs-class-infiniband, uverbsN; IB/core: Re-enable create_flow/destroy_flow uverbs (November 2013)",
  ),
  kernelNetdev: fact("yes: the card stays with the kernel, flow rules take their packets out", RAW),
  vm: fact("with a virtual function passed through", "DPDK guides 20.08, Linux Drivers: Bifurcated Driver"),
  ethernet: fact("yes with raw packet queue pairs; other queue pairs carry RDMA messages", RAW),
  hardware: fact(
    "raw packets: a ConnectX (mlx4, mlx5), not run on hardware; datagrams between two ends: any RoCE device, also rxe in software (iWARP has no datagrams)",
    "docs/verbs.md",
  ),
  security: fact(
    "the card translates addresses of registered memory alone; CAP_NET_RAW for raw packets",
    "Documentation/infiniband/user_verbs.rst",
  ),
  performance: fact(
    "the card's own rings by doorbell, no copy, no system call; not run on hardware",
    "Documentation/infiniband/user_verbs.rst",
  ),
};
