// What a handler can learn of a received frame beyond its bytes, for each way that frames come.

/** For each accessor of a frame what it gives; "not available", perhaps with the reason, where it is undefined. */
export interface RxMetadata {
  readonly hash: string;
  readonly vlan: string;
  readonly timestamp: string;
}

const NOTHING = "not available";

/** What a backend gives. */
export function rxMetadata(backend: "af_xdp" | "af_packet" | "loopback"): RxMetadata {
  switch (backend) {
    case "af_xdp":
      // The kernel hands hints only to XDP programs bound to one device, and only some drivers have any.
      return {
        hash: NOTHING,
        vlan: `${NOTHING}: a tag stands in the frame, unless the card took it off`,
        timestamp: NOTHING,
      };
    case "af_packet":
      return {
        hash: "the kernel's flow hash",
        vlan: `${NOTHING}: a tag that was taken off is put back in the frame`,
        timestamp: "the kernel's clock, nanoseconds since 1970",
      };
    case "loopback":
      return { hash: NOTHING, vlan: NOTHING, timestamp: NOTHING };
  }
}
