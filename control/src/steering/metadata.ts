// What a handler can learn of a received frame beyond its bytes, for each way that frames come.
import type { Facts } from "../facts/facts.js";
import type { Way } from "./ladder.js";
import type { SplitRequest } from "./plan.js";
import { HINTS, type Hint } from "./rules/hints.js";

export { HINTS, type Hint } from "./rules/hints.js";

/** For each accessor of a frame what it gives; "not available", perhaps with the reason, where it is undefined. */
export type RxMetadata = Readonly<Record<Hint, string>>;

const NOTHING = "not available";

/** The names of the driver's answers in the netdev family (enum netdev_xdp_rx_metadata, linux/netdev.h). */
const FEATURE: Readonly<Record<Hint, string>> = { hash: "hash", timestamp: "timestamp", vlan: "vlan-tag" };

const FROM_DRIVER: RxMetadata = {
  hash: "the card's receive hash",
  vlan: "the tag (TCI) that the card took off; one that it left stands in the frame",
  timestamp: "the card's clock in nanoseconds, where it stamped the frame",
};

const NOT_ASKED = "it was not asked for";

/** What a backend gives that does not ask the card's driver, when it is asked for `hints`. */
export function rxMetadata(
  backend: "af_packet" | "pci" | "loopback" | "vhost-user" | "virtio-user" | "verbs",
  hints: readonly Hint[],
): RxMetadata {
  switch (backend) {
    case "af_packet":
      return {
        hash: hints.includes("hash") ? "the kernel's flow hash" : `${NOTHING}: ${NOT_ASKED}`,
        vlan: `${NOTHING}: a tag that was taken off is put back in the frame`,
        timestamp: "the kernel's clock, nanoseconds since 1970",
      };
    case "pci":
    case "verbs":
    case "vhost-user":
    case "virtio-user":
      // No offload is negotiated: the network header before each frame is zeros (VIRTIO 1.2, section 5.1.6).
      return { hash: NOTHING, vlan: `${NOTHING}: a tag stands in the frame`, timestamp: NOTHING };
    case "loopback":
      return { hash: NOTHING, vlan: NOTHING, timestamp: NOTHING };
  }
}

/** What the driver is asked of each frame on the way planned, and what handlers get. */
export function planMetadata(
  facts: Facts,
  way: Way,
  request: SplitRequest,
): { readonly hints: readonly Hint[]; readonly metadata: RxMetadata } {
  if (way.backend === "af_packet") {
    // The time stands in the ring in any case; the hash would have to be worked out.
    const hints = (["hash"] as const).filter((hint) => asksFor(request, hint));
    return { hints, metadata: rxMetadata("af_packet", hints) };
  }
  const reasons = Object.fromEntries(HINTS.map((hint) => [hint, refusal(facts, way, request, hint)]));
  const hints = HINTS.filter((hint) => reasons[hint] === null);
  return { hints, metadata: xdpMetadata(hints, (hint) => reasons[hint] ?? "") };
}

/** What handlers get when the driver is asked for `hints`; `why` says for each other one why it is not. */
export function xdpMetadata(hints: readonly Hint[], why: (hint: Hint) => string): RxMetadata {
  const tell = (hint: Hint): string =>
    hints.includes(hint) ? FROM_DRIVER[hint] : `${NOTHING}: ${why(hint)}`;
  return { hash: tell("hash"), vlan: tell("vlan"), timestamp: tell("timestamp") };
}

/** Why the driver is not asked, or null where it is. */
function refusal(facts: Facts, way: Way, request: SplitRequest, hint: Hint): string | null {
  const { driver } = facts.driver;
  if (way.mode === "generic") return "in generic mode the driver cannot be asked";
  const known = facts.xdpFeatures?.rxMetadata;
  if (known === undefined) return "the kernel does not say what its drivers know of a frame (6.3)";
  if (!known.includes(FEATURE[hint])) return `the driver ${driver} does not give it to XDP`;
  // It answers for every frame, with 0: drivers/net/veth.c, veth_xdp_rx_timestamp().
  if (hint === "timestamp" && driver === "veth") return "a veth has no clock";
  return asksFor(request, hint) ? null : `the driver has it, and ${NOT_ASKED}`;
}

function asksFor({ metadata = false }: SplitRequest, hint: Hint): boolean {
  return typeof metadata === "boolean" ? metadata : metadata.includes(hint);
}
