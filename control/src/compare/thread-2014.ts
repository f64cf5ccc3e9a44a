// What the bifurcated driver of 2014 was said to be, criterion by criterion, and what became of it.
import type { Criterion } from "./criteria.js";

/** How a claim stands today. */
export type Verdict = "held" | "changed" | "cannot be shown here";

/** One claim, by one criterion. */
export interface Claim {
  readonly criterion: Criterion;
  /** In our words. */
  readonly claim: string;
  /** Read in the thread itself, or kept by this project's design. */
  readonly from: "thread" | "design";
  readonly verdict: Verdict;
  readonly today: string;
}

/** Where the claims come from. */
export const CLAIMS_FROM =
  "Danny Zhou answered on dev@dpdk.org on 24 November 2014, in the thread “bifurcated driver” " +
  "(mails.dpdk.org/archives/dev/2014-November/008626.html), to the question that Thomas Monjalon had put on 5 November: " +
  "sum up igb_uio, uio_pci_generic, VFIO, ibverbs and the bifurcated driver. He had a slide that compares all but ibverbs, " +
  "which the list could not carry. What could be read here is the beginning of that answer, where he sets the driver " +
  "against SR-IOV; claims from it are marked “thread”. The others are those that this project's design kept, marked " +
  "“design”. All are in our words.";

/** All of them, in the order of the criteria. */
export const CLAIMS: readonly Claim[] = [
  {
    criterion: "upstream",
    claim: "It stands on packet sockets (AF_PACKET), which are the kernel's own.",
    from: "design",
    verdict: "changed",
    today:
      "The patches for packet sockets were never merged, and these still only copy. AF_XDP (Linux 4.18) is the upstream heir for rings in user memory, queue leases (7.1) " +
      "for lending a queue.",
  },
  {
    criterion: "kernelNetdev",
    claim:
      "The card's own flow director hands each flow to the kernel or to user space, while a virtual function gets its share by MAC address or VLAN.",
    from: "thread",
    verdict: "held",
    today:
      "The kernel keeps the interface beside AF_PACKET, AF_XDP, SR-IOV and verbs. Measured: its own round trips over the same card " +
      "while the user's queue is flooded, and while its program is stopped. By VFIO and UIO the interface is gone.",
  },
  {
    criterion: "vm",
    claim: "Neither what could be read nor the design has a claim of this.",
    from: "design",
    verdict: "cannot be shown here",
    today:
      "Today a split works in a VM on any virtual card with a copy, and on virtio without one where the device translates addresses: the lab is such a VM.",
  },
  {
    criterion: "ethernet",
    claim: "User space gets whole frames from the card's own queues.",
    from: "design",
    verdict: "held",
    today:
      "AF_XDP and leased queues carry whole Ethernet frames, headers and all; so do cards that are taken. Of verbs only raw packet queue pairs do by themselves.",
  },
  {
    criterion: "hardware",
    claim:
      "It builds on the flow director inside the card: up to 8 K filters on layers 3 and 4, such as five-tuples, to queues. A virtual function has none of its own.",
    from: "thread",
    verdict: "changed",
    today:
      "A program in the driver (XDP) tells flows apart on any card. A filter in the card is still needed for a queue of one's " +
      "own, and with it for zero-copy beside the kernel; no emulated card offers the kernel one.",
  },
  {
    criterion: "security",
    claim:
      "Control without possession: the kernel's side is the master; the user's side polls its queue and can do nothing else. (Thomas Monjalon had asked on the list what secures it where the card has no MMU of its own.)",
    from: "design",
    verdict: "held",
    today:
      "And more than held: with AF_XDP the process has neither registers nor descriptors of the card, and through the broker " +
      "not one capability (THREAT-MODEL.md names the tests). Where a process does get descriptors, VFIO's IOMMU is what secures memory.",
  },
  {
    criterion: "performance",
    claim:
      "A request gets as many pairs of queues as it asks for, where a virtual function of ixgbe has two at most.",
    from: "thread",
    verdict: "cannot be shown here",
    today:
      "Queues of one's own need a card with ntuple rules. The lab's cards have none: there a flow shares the kernel's queues with a copy, " +
      "or is the whole card; what each costs in software emulation stands in the tables.",
  },
];
