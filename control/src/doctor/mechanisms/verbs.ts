// Verbs: queue pairs of an RDMA card, which stays with the kernel; flow rules bring raw packets to them.
import { lackIf, lacksCapability, lacksModule, type Mechanism } from "./mechanism.js";

/** The mechanism. */
export const verbs: Mechanism = {
  name: "verbs",
  probe: (facts) => {
    const { driver } = facts.card.facts.driver;
    // The drivers whose devices have raw packet queue pairs (rdma-core's providers mlx4 and mlx5).
    const raw = driver === "mlx5_core" || driver === "mlx4_en";
    return [
      ...lackIf(!raw, `${driver} has no raw packet queue pairs`, null),
      ...lackIf(
        facts.machine.rdma.length === 0,
        "there is no RDMA device",
        // In software: it carries datagrams, not raw packets (docs/verbs.md).
        `sudo rdma link add rxe0 type rxe netdev ${facts.card.facts.link.name}`,
      ),
      ...lackIf(
        !facts.machine.libibverbs,
        "rdma-core is not installed",
        "sudo apt-get install libibverbs1 ibverbs-providers",
      ),
      ...lacksModule(facts, "ib_uverbs"),
      ...lacksCapability(facts, "CAP_NET_RAW"),
    ];
  },
};
