// Cards that are refused before anything is changed, on a bus made of plain values.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BifurcateError } from "../errors.js";
import { bootId } from "../facts/processes.js";
import { staysOpen, type CardBus, type PciFunction } from "./bus.js";
import { giveCard } from "./give.js";
import type { Mechanism } from "./mechanism.js";
import { readRecord, recordedCards, writeRecord } from "./record.js";
import { takeCard } from "./take.js";

const ADDRESS = "0000:01:00.0";

/** A bus of one idle card; what binds it fails the test. */
function bus(card: Partial<PciFunction> = {}, more: Partial<CardBus> = {}): CardBus {
  return {
    function: () => ({
      address: ADDRESS,
      vendor: 0x8086,
      device: 0x10c9,
      class: 0x020000,
      driver: "igb",
      iommuGroup: 7,
      groupMembers: [{ address: ADDRESS, driver: "igb" }],
      interfaces: [],
      sriovTotal: 0,
      virtualFunctions: [],
      supported: "igb",
      ...card,
    }),
    lock: () => ({ close: () => undefined }),
    bind: () => {
      throw new Error("it was bound");
    },
    giveBack: () => null,
    hasDriver: () => true,
    loadModule: () => null,
    groupType: () => "identity",
    noIommuMode: () => false,
    holders: () => [],
    isOpen: () => false,
    ...more,
  };
}

function refusal(on: CardBus, via: Mechanism = "vfio", noMemoryProtection = true): BifurcateError {
  try {
    takeCard({ address: ADDRESS, via, force: false, noMemoryProtection }, on);
  } catch (thrown) {
    if (thrown instanceof BifurcateError) return thrown;
    throw thrown;
  }
  throw new Error("it was taken");
}

let state: string;
beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), "bf-take-"));
  process.env["BIFURCATE_STATE_DIR"] = state;
});
afterEach(() => {
  vi.restoreAllMocks();
  delete process.env["BIFURCATE_STATE_DIR"];
  rmSync(state, { recursive: true });
});

describe("a card is not taken", () => {
  it("without an IOMMU group, unless that was asked for by name", () => {
    const card = bus({ groupMembers: [] }).function(ADDRESS);
    delete card.iommuGroup;
    const error = refusal(bus({}, { function: () => card }));
    expect([error.code, error.why]).toEqual([
      "E_CARD_GROUP",
      expect.stringContaining("in no IOMMU group") as string,
    ]);
  });

  it("when another card of its group is in use, which is named", () => {
    const groupMembers = [
      { address: ADDRESS, driver: "igb" },
      { address: "0000:00:1c.0", driver: "pcieport" },
      { address: "0000:01:00.1", driver: "e1000e" },
      { address: "0000:01:00.2", driver: "vfio-pci" },
    ];
    const error = refusal(bus({ groupMembers }));
    expect(error.code).toBe("E_CARD_GROUP");
    expect(error.why).toBe("its IOMMU group 7 is shared with 0000:01:00.1 (e1000e)");
  });

  it("without memory protection, unless that was said, with why", () => {
    for (const via of ["uio_pci_generic", "igb_uio", "vfio-noiommu"] as const) {
      const error = refusal(bus(), via, false);
      expect([error.code, error.status]).toEqual(["E_NO_MEMORY_PROTECTION", 2]);
      expect(error.why).toContain("no IOMMU stands between");
      expect(error.next).toContain("--no-memory-protection");
    }
  });

  it("without memory protection by who is not root, though it was said; what protects memory asks for no root", () => {
    vi.spyOn(process, "geteuid").mockReturnValue(1000);
    for (const via of ["uio_pci_generic", "igb_uio", "vfio-noiommu"] as const) {
      const error = refusal(bus(), via);
      expect([error.code, error.what]).toEqual(["E_NOT_PRIVILEGED", `take ${ADDRESS} via ${via}`]);
      expect(error.why).toContain("for root alone");
    }
    const busy = bus({}, { holders: () => [{ pid: 42, command: "testpmd" }] });
    for (const via of ["vfio", "iommufd"] as const)
      expect(refusal(busy, via, false).code).toBe("E_CARD_BUSY");
  });

  it("when the kernel has no such driver and its module cannot be loaded", () => {
    const error = refusal(bus({}, { hasDriver: () => false, loadModule: () => "Module vfio-pci not found" }));
    expect([error.code, error.status]).toEqual(["E_NO_DRIVER", 77]);
    expect(error.why).toContain("Module vfio-pci not found");
  });

  it("when a process has it open, which is named", () => {
    const error = refusal(bus({}, { holders: () => [{ pid: 42, command: "testpmd" }] }));
    expect([error.code, error.why]).toEqual(["E_CARD_BUSY", "testpmd (pid 42) has it open"]);
  });

  it("when somebody has nothing of it but its registers mapped, who cannot be named", () => {
    const error = refusal(bus({ driver: "vfio-pci" }, { isOpen: () => true }));
    expect([error.code, error.why]).toEqual(["E_CARD_BUSY", "somebody has it open, or mapped"]);
  });

  it("when it is no network card", () => {
    const error = refusal(bus({ class: 0x010802, vendor: 0x144d, device: 0xa808 }));
    expect(error.code).toBe("E_CARD_UNKNOWN");
    expect(error.why).toBe("144d:a808 is no network card (class 0108)");
  });
});

describe("whether a card is open", () => {
  it("the kernel says, or nothing of it", () => {
    expect(staysOpen(() => true, 0)).toBe(true);
    expect(staysOpen(() => false, 0)).toBe(false);
    expect(staysOpen(() => null, 0)).toBe(false);
  });

  it("is waited for while the kernel closes it for a process that has just ended", () => {
    let left = 3;
    expect(staysOpen(() => left-- > 0)).toBe(false);
  });
});

/** Writes down that the card was taken from the kernel's `driver`, in this boot unless said otherwise. */
function record(via: Mechanism, boot = bootId(), driver = "igb"): void {
  writeRecord({
    version: 1,
    address: ADDRESS,
    bootId: boot,
    taken: "2026-01-01T00:00:00.000Z",
    via,
    driver,
    driverOverride: null,
    interfaces: [{ name: "gone0", index: 9, mac: "02:00:00:00:00:09", mtu: 1500, up: true, standing: [] }],
  });
}

describe("a card that is taken already", () => {
  const holders = () => [{ pid: 42, command: "a client of the broker" }];

  it("stays as it is while somebody has it open, so that the unit of a broker can start again", () => {
    record("vfio");
    const on = bus({ driver: "vfio-pci" }, { holders });
    expect(takeCard({ address: ADDRESS, via: "vfio", force: false, noMemoryProtection: false }, on)).toEqual({
      address: ADDRESS,
      via: "vfio",
      driver: "vfio-pci",
      from: { driver: "igb", interfaces: ["gone0"] },
      supported: "igb",
      overruled: [],
    });
  });

  it("is not taken in another way under who has it, nor after another program has bound it", () => {
    record("vfio");
    expect(refusal(bus({ driver: "vfio-pci" }, { holders }), "uio_pci_generic").code).toBe("E_CARD_BUSY");
    expect(refusal(bus({ driver: "uio_pci_generic" }, { holders })).code).toBe("E_CARD_BUSY");
  });
});

describe.skipIf(process.getuid?.() !== 0)("a card is not taken, even by root", () => {
  it("by physical addresses that an IOMMU translates", () => {
    const error = refusal(bus({}, { groupType: () => "DMA-FQ" }), "uio_pci_generic");
    expect([error.code, error.why]).toEqual(["E_CARD_GROUP", expect.stringContaining("DMA-FQ") as string]);
  });

  it("when its interface cannot be seen, since it may be in another network namespace", () => {
    const error = refusal(bus());
    expect([error.code, error.why]).toEqual([
      "E_CARD_IN_USE",
      expect.stringContaining("another network namespace") as string,
    ]);
  });
});

// The kernel of a machine that was started anew has bound its own drivers, and knows nothing of what was taken.
describe.skipIf(process.getuid?.() !== 0)("a card that was taken when the machine went down", () => {
  it("is taken as if for the first time: what it was in the other boot does not count", () => {
    record("vfio", "another boot", "e1000e");
    const bound: string[] = [];
    const on = bus({}, { bind: (address, driver) => void bound.push(`${address} ${driver}`) });
    const taken = takeCard({ address: ADDRESS, via: "vfio", force: true, noMemoryProtection: false }, on);
    expect([taken.from, bound]).toEqual([{ driver: "igb", interfaces: [] }, [`${ADDRESS} vfio-pci`]]);
    expect(readRecord(ADDRESS)).toMatchObject({ bootId: bootId(), driver: "igb", interfaces: [] });
  });

  it("is the kernel's when it is given back, and what was written down of it goes", async () => {
    record("vfio", "another boot", "e1000e");
    expect(await giveCard(ADDRESS, bus())).toEqual({
      address: ADDRESS,
      driver: "igb",
      interfaces: [],
      recorded: false,
    });
    expect(recordedCards()).toEqual([]);
  });
});
