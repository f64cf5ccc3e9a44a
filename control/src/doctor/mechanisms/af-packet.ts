// AF_PACKET: a packet socket with a ring of its own, which gets a copy of every frame.
import { lackIf, lacksCapability, type Mechanism } from "./mechanism.js";

/** The mechanism. */
export const afPacket: Mechanism = {
  name: "AF_PACKET",
  probe: (facts) => {
    const { link } = facts.card.facts;
    return [
      ...lackIf(
        facts.machine.afPacket === "absent",
        "the kernel has no packet sockets",
        "use a kernel with CONFIG_PACKET",
      ),
      ...lackIf(link.loopback || !link.ethernet, `${link.name} carries no Ethernet frames`, null),
      ...lackIf(!link.up, `${link.name} is down`, `sudo ip link set dev ${link.name} up`),
      ...lacksCapability(facts, "CAP_NET_RAW"),
    ];
  },
};
