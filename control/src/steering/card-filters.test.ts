// A flow as filters of a card: what they say, and when they cannot.
import { describe, expect, it } from "vitest";
import { cardFilters } from "./card-filters.js";

describe("a flow's filters", () => {
  it.each([
    ["arp", [{ etherType: 0x0806, queue: 1 }]],
    ["udp dst port 53 and ip", [{ protocol: 17, destinationPort: 53, queue: 1 }]],
    [
      "ip and tcp and src host 192.0.2.7 and dst port 80",
      [{ protocol: 6, source: "192.0.2.7", destinationPort: 80, queue: 1 }],
    ],
    ["ip proto 47", [{ protocol: 47, queue: 1 }]],
  ])("for '%s'", (flow, filters) => {
    expect(cardFilters(flow, 1)).toEqual(filters);
  });

  it.each([
    ["ip6 and udp", "IPv6 addresses and ports are no part of them"],
    ["ip and udp and dst net 192.0.2.0/24", "an address has no mask"],
    ["ether dst 02:00:00:00:00:01", "MAC addresses are no part of them"],
    ["ip and udp portrange 53-60", "a port has no mask"],
    ["all", "everything needs none"],
  ])("are not there for '%s': %s", (flow) => {
    expect(cardFilters(flow, 1)).toBeNull();
  });
});
