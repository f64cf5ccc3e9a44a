// The kernel's own UDP socket: the baseline that every other mechanism is compared with.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

export const kernelSocket: Known = {
  upstream: fact("in tree, in every Linux", "socket(7), udp(7)"),
  kernelNetdev: fact("it is the kernel's netdev: addresses, routes, nftables and accounting apply", "udp(7)"),
  vm: fact("yes, on any virtual card", "udp(7)"),
  ethernet: fact("payloads of UDP and TCP, no Ethernet frames", "udp(7)"),
  hardware: fact("any card with a kernel driver", "Documentation/networking/netdevices.rst"),
  security: fact("no right is needed; the process sees its own sockets' data alone", "socket(7)"),
  performance: fact("the whole stack, one copy and a system call for each datagram or batch", "recvmmsg(2)"),
};
