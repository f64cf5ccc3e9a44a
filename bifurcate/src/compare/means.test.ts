// How each mechanism is measured on a card, and what is not done without leave.

import { describe, expect, it } from "vitest";
import { KNOWN, type Card } from "@bifurcate/control";
import { disturbance, meansFor, type Leave } from "./means.js";

/** As much of a card as is asked for; `rules`: ntuple rules that it has room for. */
const card = (rules: number): Card =>
  ({
    queues: 4,
    facts: {
      link: { name: "nic0" },
      driver: { driver: "igb" },
      ntuple: rules === 0 ? null : { capacity: rules, rules: [] },
      features: {},
      rss: { indirection: [0, 1, 2, 3] },
    },
    pci: { address: "0000:01:00.0" },
  }) as unknown as Card;
const free: Leave = { keep: null, unprotected: true };

describe("the means to measure a mechanism", () => {
  it("are there for every mechanism of the comparison but verbs, which needs both ends", () => {
    for (const mechanism of Object.keys(KNOWN)) {
      const means = meansFor(mechanism, card(16), free);
      expect("kind" in means, mechanism).toBe(mechanism !== "verbs");
    }
  });

  it("take no card that has to stay, nor make functions of it", () => {
    for (const mechanism of Object.keys(KNOWN).filter((each) => disturbance(each) > 0)) {
      const means = meansFor(mechanism, card(0), { ...free, keep: "the kernel uses it: it has an address" });
      expect(means).toMatchObject({ why: expect.stringContaining("it has an address") as unknown });
    }
  });

  it("leave memory protected unless that was said", () => {
    const careful: Leave = { keep: null, unprotected: false };
    for (const mechanism of ["VFIO without IOMMU", "uio_pci_generic", "igb_uio"]) {
      expect(meansFor(mechanism, card(0), careful)).toMatchObject({
        why: expect.stringContaining("--no-memory-protection") as unknown,
      });
    }
    expect(meansFor("VFIO group", card(0), careful)).toEqual({
      kind: "taken",
      address: "0000:01:00.0",
      via: "vfio",
    });
  });

  it("give zero-copy the whole card where the flow can have no queue of its own", () => {
    const beside = meansFor("AF_XDP zero-copy", card(16), free);
    expect(beside).toMatchObject({ kind: "split", flow: "udp dst port 52014" });
    expect(beside).not.toHaveProperty("whole");
    expect(meansFor("AF_XDP zero-copy", card(0), free)).toMatchObject({
      kind: "split",
      flow: "all",
      whole: expect.stringContaining("igb has no ntuple rules") as unknown,
    });
  });

  it("send a virtual function what is addressed to it", () => {
    const means = meansFor("SR-IOV VF", card(0), free);
    expect(means).toMatchObject({
      kind: "function",
      flow: "ether dst 02:bf:00:00:0f:01 and udp dst port 52014",
    });
  });
});
