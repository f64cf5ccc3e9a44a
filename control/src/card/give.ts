// Gives a card back to the kernel: its driver, and its interfaces as they were.
import { BifurcateError } from "../errors.js";
import { nativeCardNetns } from "../native.js";
import { machineBus, type CardBus } from "./bus.js";
import { cardError } from "./errors.js";
import { restoreInterfaces } from "./interfaces.js";
import { HANDING_DRIVERS } from "./mechanism.js";
import { readRecord, removeRecord } from "./record.js";
import { checkHolders, lockCard, lookUp } from "./take.js";

/** A card that was given back. */
export interface GivenCard {
  readonly address: string;
  /** The kernel driver that has it now; null when none wants it. */
  readonly driver: string | null;
  /** The interfaces that are back as they were. */
  readonly interfaces: readonly string[];
  /** False: no record of this boot told what stood on its interfaces. */
  readonly recorded: boolean;
}

/**
 * Gives a card back. Done twice, the second time does nothing but look.
 * @throws E_NO_SUCH_CARD, E_BAD_OPTION, E_CARD_BUSY, E_NOT_PRIVILEGED, E_JOURNAL_CORRUPT; E_UNDO_INCOMPLETE when the
 *   kernel's driver has it and something of its interfaces could not be put back: the record stays.
 */
export async function giveCard(wanted: string, bus: CardBus = machineBus()): Promise<GivenCard> {
  const what = `give ${wanted} back`;
  const { address } = lookUp(bus, wanted, what);
  const lock = lockCard(bus, address, what);
  try {
    const card = lookUp(bus, address, what);
    checkHolders(bus, card, what);
    const record = readRecord(address);
    let driver = card.driver ?? null;
    if (driver === null || HANDING_DRIVERS.has(driver)) {
      try {
        // What it was bound to before we came, by somebody else's driver_override, it is bound to again.
        const before = record?.driverOverride ?? null;
        if (before === null) driver = bus.giveBack(address);
        else bus.bind(address, (driver = before));
      } catch (thrown) {
        throw cardError(thrown, what);
      }
    }
    const wants = record?.driver ?? null;
    const left =
      wants === null || wants === driver
        ? []
        : [`it was ${wants}'s, and ${driver ?? "no driver"} has it now`];
    const saved = record?.interfaces ?? [];
    const netns = nativeCardNetns();
    try {
      const restored = await restoreInterfaces(netns, saved, () => bus.function(address).interfaces);
      left.push(...restored.flatMap((each) => each.left.map((why) => `${each.name}: ${why}`)));
    } finally {
      netns.close();
    }
    if (left.length > 0) {
      throw new BifurcateError("E_UNDO_INCOMPLETE", {
        what,
        why: left.join("; "),
        next: `Run \`bifurcate give ${address}\` again; what it lists it could not put back.`,
        data: { left },
      });
    }
    removeRecord(address);
    return { address, driver, interfaces: saved.map((each) => each.name), recorded: record !== null };
  } finally {
    lock.close();
  }
}
