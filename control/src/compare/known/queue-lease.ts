// Queue lease: the kernel lends a receive queue of a card to a virtual device.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

export const queueLease: Known = {
  upstream: fact(
    "in tree since Linux 7.1, for drivers with queue management",
    "Documentation/netlink/specs/netdev.yaml, queue-create; docs/leases.md",
  ),
  kernelNetdev: fact("yes: the card stays, one queue of it is lent", "docs/leases.md"),
  vm: fact("only where a card with queue management is passed through (or gvnic)", "docs/leases.md"),
  ethernet: fact("yes, whole frames", "docs/leases.md"),
  hardware: fact(
    "mlx5, bnxt, gve or fbnic, and ntuple rules to steer to the queue",
    "control/src/steering/drivers.ts, from the drivers' queue_mgmt_ops",
  ),
  security: fact(
    "as AF_XDP zero-copy; while it stands nobody else can bind the queue, and deleting the device ends it",
    "docs/leases.md",
  ),
  performance: fact("that of AF_XDP zero-copy on the leased queue", "docs/leases.md"),
};
