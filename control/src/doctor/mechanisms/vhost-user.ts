// vhost-user: the rings of a virtual machine's or container's card, shared over a unix socket; no card is involved.
import { lackIf, type Mechanism } from "./mechanism.js";

/** The mechanism: it needs memory that two processes can map, which every kernel since 3.17 has (memfd). */
export const vhostUser: Mechanism = {
  name: "vhost-user",
  probe: ({ machine }) =>
    lackIf(
      machine.hugepages.total === 0,
      "there are no huge pages, which the virtual machine's memory should stand in",
      "sudo sysctl -w vm.nr_hugepages=512",
    ),
};
