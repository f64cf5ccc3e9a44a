// AF_PACKET: packet sockets with a memory-mapped ring.
import { fact } from "../cell.js";
import type { Known } from "./known.js";

export const afPacket: Known = {
  upstream: fact("in tree since Linux 2.2, block ring (TPACKET_V3) since 3.2", "packet(7), HISTORY and BUGS"),
  kernelNetdev: fact(
    "yes: it gets copies; the kernel handles the same frames unless a program at tc ingress drops them",
    "packet(7); docs/mechanisms/af-packet.md",
  ),
  vm: fact("yes, on any virtual card", "packet(7)"),
  ethernet: fact("yes, whole frames", "packet(7), SOCK_RAW"),
  hardware: fact("none: any card with a kernel driver", "packet(7)"),
  security: fact(
    "CAP_NET_RAW; the kernel copies, so the process can write into no memory but its own; it may see every frame of the card",
    "packet(7); capabilities(7)",
  ),
  performance: fact(
    "an sk_buff for each frame and a copy into the ring; no system call for each frame",
    "Documentation/networking/packet_mmap.rst",
  ),
};
