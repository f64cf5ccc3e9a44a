// What the bifurcated driver of 2014 was said to be, criterion by criterion, and what became of it.
import type { Criterion } from "./criteria.js";

/** How a claim stands today. */
export type Verdict = "held" | "changed" | "cannot be shown here";

/** One claim, by one criterion. */
export interface Claim {
  readonly criterion: Criterion;
  /** In our words. */
  readonly claim: string;
  readonly verdict: Verdict;
  readonly today: string;
}

/** Where the claims come from. */
export const CLAIMS_FROM =
  "The text of the answers that Danny Zhou gave on dev@dpdk.org in 2014 was not at hand when this was written (it was looked " +
  "for in the list's archives as far as they could be searched). The claims are those that this project's design kept of " +
  "them, in our words; where it kept none, that is said.";

/** All of them, in the order of the criteria. */
export const CLAIMS: readonly Claim[] = [
  {
    criterion: "upstream",
    claim: "It stands on packet sockets (AF_PACKET), which are the kernel's own.",
    verdict: "changed",
    today:
      "Packet sockets still only copy. AF_XDP (Linux 4.18) is the upstream heir for rings in user memory, queue leases (7.1) " +
      "for lending a queue.",
  },
  {
    criterion: "kernelNetdev",
    claim:
      "The kernel keeps the card, its interface and everything nobody asked for; a queue that nobody polls does not stall the kernel's (drop_en).",
    verdict: "held",
    today:
      "Measured: the kernel's own round trips over the same card while the user's queue is flooded, and while its program is " +
      "stopped. Drop_En itself is a register of the card, which the emulation accepts without effect.",
  },
  {
    criterion: "vm",
    claim: "The design kept no claim of this.",
    verdict: "cannot be shown here",
    today:
      "Today a split works in a VM on any virtual card with a copy, and on virtio without one where the device translates addresses.",
  },
  {
    criterion: "ethernet",
    claim: "User space gets whole frames from the card's own queues.",
    verdict: "held",
    today: "AF_XDP and leased queues carry whole Ethernet frames, headers and all.",
  },
  {
    criterion: "hardware",
    claim: "The card has to steer flows to queues by itself (flow director).",
    verdict: "changed",
    today:
      "A program in the driver (XDP) tells flows apart on any card. A filter in the card is still needed for a queue of one's " +
      "own, and with it for zero-copy beside the kernel.",
  },
  {
    criterion: "security",
    claim:
      "Control without possession: the kernel's side is the master; the user's side polls its queue and can do nothing else.",
    verdict: "held",
    today:
      "And more than held: with AF_XDP the process has neither registers nor descriptors of the card, and through the broker " +
      "not one capability (THREAT-MODEL.md names the tests).",
  },
  {
    criterion: "performance",
    claim: "User space polls its own queues at memory speed.",
    verdict: "cannot be shown here",
    today:
      "It needs a card with ntuple rules and zero-copy. The lab measures copies on virtual cards; what they cost stands in the " +
      "table.",
  },
];
