// The word that names a card to open.

import { describe, expect, it } from "vitest";
import { parseCardSpec } from "./spec.js";

describe("a card by a word", () => {
  it("has defaults that suit most", () => {
    expect(parseCardSpec("pci:0000:01:10.0")).toEqual({
      address: "0000:01:10.0",
      via: "vfio",
      broker: false,
      noMemoryProtection: false,
      queues: 1,
      frames: 2048,
      frameSize: 2048,
      jumboFrames: 0,
      ringSize: 512,
      promiscuous: true,
      interrupts: false,
      packed: false,
    });
  });

  it("takes every key, and a pool that goes with the rings", () => {
    const spec = parseCardSpec(
      "pci:01:00.0,via=igb_uio,queues=4,ringSize=1024,interrupts=yes,packed=yes,jumboFrames=64,mac=02:00:00:00:00:01",
    );
    expect(spec).toMatchObject({ via: "igb_uio", queues: 4, frames: 16_384, interrupts: true });
    expect(spec).toMatchObject({ packed: true, jumboFrames: 64 });
    expect(spec.mac).toBe("02:00:00:00:00:01");
  });

  it.each([
    ["pci:", "no address"],
    ["pci:eth0", "no address"],
    ["pci:0000:01:20.0", "no address"],
    ["pci:0000:01:10.0,via=magic", "via is one of"],
    ["pci:0000:01:10.0,via=brokers", "or broker"],
    ["pci:0000:01:10.0,queues=0", "1 to 16"],
    ["pci:0000:01:10.0,ringSize=100", "power of two"],
    ["pci:0000:01:10.0,interrupts=maybe", "yes or no"],
    ["pci:0000:01:10.0,packed=perhaps", "yes or no"],
    ["pci:0000:01:10.0,jumboFrames=5000", "0 to 4096"],
    ["pci:0000:01:10.0,speed=9", "'speed' is not a key"],
  ])("refuses %s", (spec, why) => {
    expect(() => parseCardSpec(spec)).toThrow(
      expect.objectContaining({ code: "E_BAD_OPTION", why: expect.stringContaining(why) as string }),
    );
  });
});
