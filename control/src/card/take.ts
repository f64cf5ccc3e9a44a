// Takes a card from its kernel driver for user space: looks, refuses, writes down, binds.
import { BifurcateError, errnoOf, messageOf } from "../errors.js";
import { bootId } from "../facts/processes.js";
import { nativeCardNetns } from "../native.js";
import { stateDirectory } from "../transaction/journal.js";
import { splitsOn } from "../transaction/registry.js";
import { machineBus, type CardBus, type PciFunction } from "./bus.js";
import { cardError } from "./errors.js";
import { leavesGroupFree, translatesAddresses } from "./group.js";
import { ownSshConnection, reasonsToStay } from "./in-use.js";
import { saveInterfaces } from "./interfaces.js";
import { checkProtection, driverOf, HANDING_DRIVERS, protectsMemory, type Mechanism } from "./mechanism.js";
import { readRecord, removeRecord, writeRecord, type CardRecord } from "./record.js";

/** What is to be taken, and how. */
export interface TakeRequest {
  /** Where the card sits, as 0000:01:10.0. */
  readonly address: string;
  readonly via: Mechanism;
  /** Take it although the default route, an SSH session or somebody else needs it. */
  readonly force: boolean;
  /** The user said by name that the card may reach all memory. */
  readonly noMemoryProtection: boolean;
}

/** A card that was taken. */
export interface TakenCard {
  readonly address: string;
  readonly via: Mechanism;
  /** The kernel driver that hands it to user space now. */
  readonly driver: string;
  /** The kernel driver that had it, and the interfaces that are gone; `give` brings them back. */
  readonly from: { readonly driver: string | null; readonly interfaces: readonly string[] };
  /** The driver here that can drive it; null when none can. */
  readonly supported: string | null;
  /** Reasons to leave it where it was, overruled by force. */
  readonly overruled: readonly string[];
}

/**
 * Takes a card. One that is taken in this way already stays as it is, whoever has it open.
 * @throws E_NO_SUCH_CARD, E_BAD_OPTION, E_NO_MEMORY_PROTECTION, E_NOT_PRIVILEGED, E_CARD_UNKNOWN, E_CARD_BUSY,
 *   E_CARD_IN_USE, E_CARD_GROUP, E_NO_DRIVER, E_JOURNAL; after any of them the card is where it was.
 */
export function takeCard(request: TakeRequest, bus: CardBus = machineBus()): TakenCard {
  const { via } = request;
  const what = `take ${request.address} via ${via}`;
  checkProtection(what, via, request.noMemoryProtection, "--no-memory-protection");
  const { address } = lookUp(bus, request.address, what);
  const lock = lockCard(bus, address, what);
  try {
    const card = lookUp(bus, address, what);
    checkClass(card, what);
    const driver = driverOf(via);
    const earlier = readRecord(address);
    // Taken already, this way: nothing to do, also while somebody has it. A broker's unit asks at each of its starts.
    if (earlier?.via === via && card.driver === driver) return taken(card, earlier, []);
    checkHolders(bus, card, what);
    checkDriver(bus, via, what);
    checkGroup(bus, card, via, what);
    const { saved, reasons } =
      earlier === null ? look(card, what, request.force) : { saved: earlier.interfaces, reasons: [] };
    const record: CardRecord = {
      version: 1,
      address,
      bootId: bootId(),
      taken: new Date().toISOString(),
      via,
      driver: earlier === null ? (card.driver ?? null) : earlier.driver,
      driverOverride: earlier === null ? (card.driverOverride ?? null) : earlier.driverOverride,
      interfaces: saved,
    };
    writeRecord(record);
    bind(bus, card, driver, earlier === null, what);
    return taken(card, record, reasons);
  } finally {
    lock.close();
  }
}

function taken(card: PciFunction, record: CardRecord, overruled: readonly string[]): TakenCard {
  const { address, via, driver, interfaces } = record;
  return {
    address,
    via,
    driver: driverOf(via),
    from: { driver, interfaces: interfaces.map((each) => each.name) },
    supported: card.supported ?? null,
    overruled,
  };
}

/** @throws E_NO_SUCH_CARD, E_BAD_OPTION */
export function lookUp(bus: CardBus, address: string, what: string): PciFunction {
  try {
    return bus.function(address);
  } catch (thrown) {
    throw cardError(thrown, what);
  }
}

/** @throws E_CARD_BUSY with who has it */
export function lockCard(bus: CardBus, address: string, what: string): { close(): void } {
  try {
    return bus.lock(address);
  } catch (thrown) {
    if (errnoOf(thrown) === "EBUSY") checkHolders(bus, lookUp(bus, address, what), what);
    throw cardError(thrown, what);
  }
}

/** A card that a process has open cannot be taken from it: VFIO would wait for that process. @throws E_CARD_BUSY */
export function checkHolders(bus: CardBus, card: PciFunction, what: string): void {
  const holders = bus.holders(card);
  if (holders.length === 0 && !bus.isOpen(card)) return;
  const names = holders.map(({ pid, command }) => `${command} (pid ${pid})`).join(", ");
  const why = holders.length === 0 ? "somebody has it open, or mapped" : `${names} has it open`;
  throw new BifurcateError("E_CARD_BUSY", { what, why, data: { holders } });
}

/** Network controllers alone (PCI code and ID assignment, class 02h): a disk is not to be taken by a slip of a digit. */
function checkClass(card: PciFunction, what: string): void {
  const { class: kind, vendor, device } = card;
  if (kind >>> 16 === 0x02) return;
  const id = [vendor, device].map((each) => each.toString(16).padStart(4, "0")).join(":");
  throw new BifurcateError("E_CARD_UNKNOWN", {
    what,
    why: `${id} is no network card (class ${(kind >>> 8).toString(16).padStart(4, "0")})`,
    next: "List the network cards with `lspci -D -d ::0200`.",
  });
}

/** @throws E_NO_DRIVER when the kernel lacks the driver, and cannot load it. */
export function checkDriver(bus: CardBus, via: Mechanism, what: string): void {
  const driver = driverOf(via);
  if (bus.hasDriver(driver)) return;
  const said = bus.loadModule(driver);
  if (bus.hasDriver(driver)) return;
  throw new BifurcateError("E_NO_DRIVER", {
    what,
    why: `the kernel has no driver ${driver}: ${said ?? "its module was loaded and is not there"}`,
    next:
      via === "igb_uio"
        ? "igb_uio is no part of the kernel: install it (Debian: dpdk-kmods-dkms), or use --via vfio."
        : `Use a kernel that has ${driver}, or another --via; \`bifurcate doctor\` says what this machine has.`,
  });
}

function checkGroup(bus: CardBus, card: PciFunction, via: Mechanism, what: string): void {
  const group = card.iommuGroup ?? null;
  const refuse = (why: string, next: string): BifurcateError =>
    new BifurcateError("E_CARD_GROUP", { what, why, next });
  if (protectsMemory(via)) {
    if (group === null) {
      throw refuse(
        "it is in no IOMMU group: the machine has no IOMMU, or the kernel does not use it",
        "Switch it on in the firmware and boot with intel_iommu=on (AMD: it is on by itself).",
      );
    }
    const others = card.groupMembers
      .filter((each) => each.address !== card.address)
      .filter((each) => !leavesGroupFree(each.driver));
    if (others.length === 0) return;
    const names = others.map((each) => `${each.address} (${each.driver ?? ""})`).join(", ");
    throw refuse(
      `its IOMMU group ${group} is shared with ${names}`,
      `A group can only be given away as a whole: unbind what shares it (echo ${others[0]!.address} > /sys/bus/pci/devices/${others[0]!.address}/driver/unbind), or put the card into another slot.`,
    );
  }
  if (via === "vfio-noiommu") {
    if (group !== null && card.driver !== "vfio-pci") {
      throw refuse("an IOMMU stands before it", "Use --via vfio, which protects memory.");
    }
    if (bus.noIommuMode()) return;
    throw refuse(
      "VFIO takes no card without an IOMMU now",
      "Allow it: echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode (and modprobe vfio first).",
    );
  }
  const type = group === null ? null : bus.groupType(group);
  if (!translatesAddresses(type)) return;
  throw refuse(
    `the IOMMU translates the addresses of its group ${group ?? ""} (${type ?? ""}): physical ones lead nowhere`,
    "Use --via vfio; or boot with iommu=pt.",
  );
}

/** What is on the card's interfaces, and whether that may go. @throws E_CARD_IN_USE */
function look(card: PciFunction, what: string, force: boolean) {
  const netns = nativeCardNetns();
  try {
    const [links, addresses, routes, sockets] = [
      netns.links(),
      netns.addresses(),
      netns.routes(),
      netns.sockets(),
    ];
    const around = {
      links,
      addresses,
      routes,
      sockets,
      sshConnection: ownSshConnection(),
      splitsOn: (ifindex: number) => splitsOn(stateDirectory(), netns.inode, ifindex),
    };
    const reasons = card.interfaces.flatMap((name) => {
      const link = links.find((each) => each.name === name);
      return link === undefined ? [] : reasonsToStay(link, around);
    });
    const driven = card.driver != null && !HANDING_DRIVERS.has(card.driver);
    if (driven && card.interfaces.length === 0) {
      reasons.push(
        `${card.driver ?? ""} has it and shows no interface here: it may be in another network namespace`,
      );
    }
    if (card.virtualFunctions.length > 0) {
      reasons.push(`it has virtual functions, which would go with it: ${card.virtualFunctions.join(", ")}`);
    }
    if (reasons.length > 0 && !force) {
      throw new BifurcateError("E_CARD_IN_USE", { what, why: reasons.join("; "), data: { reasons } });
    }
    return { saved: saveInterfaces(netns, card.interfaces), reasons };
  } finally {
    netns.close();
  }
}

function bind(bus: CardBus, card: PciFunction, driver: string, fresh: boolean, what: string): void {
  try {
    bus.bind(card.address, driver);
  } catch (thrown) {
    const error =
      errnoOf(thrown) === "ENOENT"
        ? new BifurcateError("E_NO_DRIVER", { what, why: messageOf(thrown), cause: thrown })
        : cardError(thrown, what);
    const now = lookUp(bus, card.address, what);
    // Nothing changed yet: nothing to give back. Otherwise the record stays, and `give` makes it good.
    if (fresh && now.driver === card.driver) removeRecord(card.address);
    throw error;
  }
}
