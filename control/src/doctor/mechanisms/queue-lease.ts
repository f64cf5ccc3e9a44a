// Queue lease: the kernel lends a receive queue of a card to a virtual interface (netkit), Linux 7.1.
import { lacksCapability, lacksModule, type Mechanism } from "./mechanism.js";

/** The mechanism. */
export const queueLease: Mechanism = {
  name: "queue lease",
  probe: (facts) => [...lacksModule(facts, "netkit"), ...lacksCapability(facts, "CAP_NET_ADMIN")],
};
