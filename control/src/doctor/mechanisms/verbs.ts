// Verbs: queue pairs of an RDMA card, which stays with the kernel: raw packets by flow rules, or datagrams between two ends.
import { lackIf, lacksCapability, lacksModule, type Mechanism } from "./mechanism.js";

/** The drivers whose devices have raw packet queue pairs (rdma-core's providers mlx4 and mlx5). */
export function hasRawPackets(driver: string): boolean {
  return driver === "mlx5_core" || driver === "mlx4_en";
}

/** The mechanism: without raw packets it still carries datagrams, over any RDMA device that stands on the card. */
export const verbs: Mechanism = {
  name: "verbs",
  probe: (facts) => {
    const { link, driver } = facts.card.facts;
    const raw = hasRawPackets(driver.driver);
    return [
      ...lackIf(
        !facts.machine.rdma.some(({ ifname }) => ifname === link.name),
        raw
          ? `no RDMA device stands on ${link.name}`
          : `${driver.driver} has no raw packet queue pairs, and no RDMA device for datagrams stands on ${link.name}`,
        // In software; docs/verbs.md has how two ends meet.
        raw ? "sudo modprobe mlx5_ib" : `sudo rdma link add rxe0 type rxe netdev ${link.name}`,
      ),
      ...lackIf(
        !facts.machine.libibverbs,
        "rdma-core is not installed",
        "sudo apt-get install libibverbs1 ibverbs-providers",
      ),
      ...lacksModule(facts, "ib_uverbs"),
      ...(raw ? lacksCapability(facts, "CAP_NET_RAW") : []),
    ];
  },
};
