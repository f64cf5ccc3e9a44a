// How a program receives by each mechanism on a card, or why it cannot be measured there.

import { BASELINE } from "@bifurcate/control/compare/known/index";
import type { Card } from "@bifurcate/control/doctor/card";
import { ownQueueRefusal } from "@bifurcate/control/steering/ladder";
import { protectsMemory, type Mechanism } from "@bifurcate/control/card/mechanism";
import type { SplitOptions } from "../split/options.js";
import { flowTo } from "./packet.js";

/** How a program can receive. */
export type Means =
  | { readonly kind: "socket" }
  | {
      readonly kind: "split";
      readonly options: Partial<SplitOptions>;
      readonly flow: string;
      /** The flow is the whole card: why the kernel has no traffic over it meanwhile. */
      readonly whole?: string;
    }
  | { readonly kind: "vhost-user" }
  /** Datagrams between RDMA devices of both ends of the wire. */
  | { readonly kind: "verbs"; readonly card: string; readonly peer: string }
  /** The card is taken from its kernel driver for it, and given back. */
  | { readonly kind: "taken"; readonly address: string; readonly via: Mechanism }
  /** A virtual function with an address of its own. */
  | { readonly kind: "function"; readonly mac: string; readonly flow: string };

/** What a card may be used for. */
export interface Leave {
  /** Why the card may not be taken from the kernel for a while; null where it may. */
  readonly keep: string | null;
  /** Mechanisms without memory protection may be measured. */
  readonly unprotected: boolean;
}

/** The mechanisms by which a card is taken whole, as `take --via` names them. */
const TAKEN: Readonly<Record<string, Mechanism>> = {
  "VFIO group": "vfio",
  "VFIO iommufd": "iommufd",
  "VFIO without IOMMU": "vfio-noiommu",
  uio_pci_generic: "uio_pci_generic",
  igb_uio: "igb_uio",
};

/** The address that a virtual function is given: locally administered. */
const FUNCTION_MAC = "02:bf:00:00:0f:01";

/**
 * How much of a card a mechanism disturbs, and so how late it is measured: 0 nothing, 1 it resets the card, 2 it takes the
 * card away, which comes back as another interface.
 */
export function disturbance(mechanism: string): 0 | 1 | 2 {
  if (mechanism in TAKEN) return 2;
  return mechanism === "SR-IOV VF" ? 1 : 0;
}

/** How a mechanism is measured; verbs is not decided here, since it needs both ends. */
export function meansFor(mechanism: string, card: Card, leave: Leave): Means | { readonly why: string } {
  const flow = flowTo(null);
  const split = (options: Partial<SplitOptions>): Means => ({ kind: "split", options, flow });
  switch (mechanism) {
    case BASELINE:
      return { kind: "socket" };
    case "AF_PACKET":
      return split({ backend: "af_packet" });
    case "AF_XDP copy":
      return split({ backend: "af_xdp", zeroCopy: "off" });
    case "AF_XDP zero-copy":
      return zeroCopy(card, flow);
    case "queue lease":
      return split({ backend: "af_xdp", steering: "lease" });
    case "vhost-user":
      return { kind: "vhost-user" };
    case "SR-IOV VF":
      if (leave.keep !== null) return { why: `making virtual functions resets the card, and ${leave.keep}` };
      return { kind: "function", mac: FUNCTION_MAC, flow: flowTo(FUNCTION_MAC) };
    default: {
      const via = TAKEN[mechanism];
      if (via === undefined) return { why: "compare has no means to measure it" };
      if (leave.keep !== null)
        return { why: `the card would have to leave the kernel's driver, and ${leave.keep}` };
      if (!protectsMemory(via) && !leave.unprotected) {
        return { why: `${mechanism} has no memory protection: --no-memory-protection measures it` };
      }
      return { kind: "taken", address: card.pci!.address, via };
    }
  }
}

/** With a queue of its own beside the kernel where the card can; else on the whole card, since shared queues copy. */
function zeroCopy(card: Card, flow: string): Means {
  const { facts, queues } = card;
  const options = { backend: "af_xdp", zeroCopy: "require" } as const;
  const shared = ownQueueRefusal(facts, { ifname: facts.link.name, flows: [] }, [], queues);
  if (shared === null) return { kind: "split", options, flow };
  return {
    kind: "split",
    options,
    flow: "all",
    whole: `the whole card was the flow, since on shared queues there is no zero-copy (${shared})`,
  };
}
