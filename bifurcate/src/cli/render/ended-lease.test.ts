// What people read of a lease that was taken back, as exact text: no word of a flow where a card was leased.
import { describe, expect, it } from "vitest";
import { endedWords, type EndedLease } from "./ended-lease.js";

function words(lease: Partial<EndedLease>): string {
  const port = { device: "eth0", mechanism: "port", state: "free", transmit: "own" } as const;
  return endedWords({ id: "lease-1a2b3c4d", ...port, ...lease });
}

describe("a lease that was taken back", () => {
  it("by a port: the flow is the kernel's", () => {
    for (const mechanism of ["port", "foreign"] as const) {
      expect(words({ mechanism })).toBe("lease-1a2b3c4d: its flow is with the kernel\n");
      expect(words({ mechanism, state: "draining" })).toBe(
        "lease-1a2b3c4d: its flow is with the kernel; its port stays until the last copy of its socket is closed\n",
      );
    }
  });

  it("by a queue of the card: that is not free before its socket is closed", () => {
    const lease = { mechanism: "queue", state: "draining" } as const;
    const drains =
      "lease-1a2b3c4d: its flow is with the kernel; its queue is nobody else's until the last copy of its socket is closed";
    expect(words({ ...lease, transmit: "none" })).toBe(`${drains}\n`);
    expect(words({ ...lease, transmit: "raw" })).toBe(`${drains}, and can be sent from that long\n`);
    expect(words({ ...lease, state: "free" })).toBe("lease-1a2b3c4d: its flow is with the kernel\n");
  });

  it("of a whole card: there is no flow, and the kernel does not get it", () => {
    const lease = { device: "0000:01:00.0", mechanism: "vfio", transmit: "raw" } as const;
    expect(words({ ...lease, state: "draining" })).toBe(
      "lease-1a2b3c4d: 0000:01:00.0 reaches no memory but its client's, if that, and is nobody else's until its client " +
        "has closed it; it stays with vfio-pci\n",
    );
    expect(words({ ...lease, state: "free" })).toBe(
      "lease-1a2b3c4d: 0000:01:00.0 is free for the next lease; it stays with vfio-pci\n",
    );
  });

  it("and could not all be taken away: nothing is said to be so that may not be", () => {
    for (const mechanism of ["port", "queue", "foreign", "vfio"] as const) {
      expect(words({ mechanism, state: "revoked" })).toMatch(/^lease-1a2b3c4d: it is over, but not all /);
    }
  });

  it("of which nobody knows what it was, or what is left: it is only said to be taken back", () => {
    const unknown = { device: null, mechanism: null, transmit: null } as const;
    for (const state of [null, "free", "draining"] as const) {
      expect(words({ ...unknown, state })).toBe("lease-1a2b3c4d: it was taken back\n");
    }
    for (const mechanism of ["port", "queue", "foreign", "vfio"] as const) {
      expect(words({ mechanism, state: null })).toBe("lease-1a2b3c4d: it was taken back\n");
    }
  });
});
