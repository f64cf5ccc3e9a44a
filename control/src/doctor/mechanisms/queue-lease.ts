// Queue lease: the kernel lends a receive queue of a card to a virtual interface (netkit), Linux 7.1.
import { LEASING_DRIVERS } from "../../steering/drivers.js";
import { leaseRefusal, ownQueueRefusal } from "../../steering/ladder.js";
import { lackIf, lacksCapability, lacksModule, type Mechanism } from "./mechanism.js";

/** The mechanism: a plan's own questions, and the module that makes the virtual interface. */
export const queueLease: Mechanism = {
  name: "queue lease",
  probe: (facts) => {
    const { card } = facts;
    const { driver } = card.facts.driver;
    const refusal = leaseRefusal(card.facts);
    const own = ownQueueRefusal(card.facts, { ifname: card.facts.link.name, flows: [] }, [], card.queues);
    return [
      ...lackIf(
        refusal !== null,
        refusal ?? "",
        refusal?.includes("7.1") === true ? "use Linux 7.1 or newer" : null,
      ),
      ...lackIf(
        refusal === null && !LEASING_DRIVERS.includes(driver),
        `${driver} is not among the drivers with queue management (${LEASING_DRIVERS.join(", ")})`,
        null,
      ),
      ...lackIf(own !== null, own ?? "", null),
      ...lacksModule(facts, "netkit"),
      ...lacksCapability(facts, "CAP_NET_ADMIN"),
    ];
  },
};
