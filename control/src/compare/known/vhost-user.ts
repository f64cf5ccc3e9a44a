// vhost-user: the rings of a virtual machine's card, shared with another process over a unix socket.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

const INTEROP = "QEMU docs/interop/vhost-user.rst";

export const vhostUser: Known = {
  upstream: fact("no part in the kernel: a protocol of QEMU, since 2.1; the rings are virtio's", INTEROP),
  kernelNetdev: fact("no card is involved; a split flow can be forwarded to it", "docs/vhost-user.md"),
  vm: fact("it is made for VMs: the guest sees a virtio card, and a nested guest may too", INTEROP),
  ethernet: fact("yes, whole frames between processes", "VIRTIO 1.2, 5.1 Network Device"),
  hardware: fact("none; memory that two processes map", INTEROP),
  security: fact(
    "the driver shares memory with its device, which can write into it; every address and index is checked here",
    "docs/vhost-user.md, What is not trusted",
  ),
  performance: fact(
    "one copy a frame between two processes, no system call while both poll",
    "docs/vhost-user.md",
  ),
};
