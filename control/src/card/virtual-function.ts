// The virtual functions of a card, by sysfs (Documentation/ABI/testing/sysfs-bus-pci): how many, and who gets them.
import { readFileSync, writeFileSync } from "node:fs";

const file = (card: string, name: string): string => `/sys/bus/pci/devices/${card}/${name}`;

/** How many virtual functions the card at that address has now; 0 without SR-IOV. */
export function virtualFunctions(card: string): number {
  try {
    return Number(readFileSync(file(card, "sriov_numvfs"), "utf8"));
  } catch {
    return 0;
  }
}

/** Whether a driver of the kernel's takes each virtual function that is made (sriov_drivers_autoprobe). */
export function probesByItself(card: string): boolean {
  try {
    return readFileSync(file(card, "sriov_drivers_autoprobe"), "utf8").trim() !== "0";
  } catch {
    return true;
  }
}

/**
 * Makes one virtual function, for which no driver of the kernel's is looked; those that others make later find theirs
 * again. Throws what the kernel answers.
 */
export function makeFunction(card: string, probes: boolean): void {
  writeFileSync(file(card, "sriov_drivers_autoprobe"), "0");
  setNumber(card, "1", probes);
}

/** Takes all virtual functions away, whoever has them. Throws what the kernel answers. */
export function removeFunctions(card: string, probes: boolean): void {
  setNumber(card, "0", probes);
}

/** Sets the number, and then, also where that is refused, who takes those that are made: a killed process may not have. */
function setNumber(card: string, number: string, probes: boolean): void {
  try {
    writeFileSync(file(card, "sriov_numvfs"), number);
  } finally {
    writeFileSync(file(card, "sriov_drivers_autoprobe"), probes ? "1" : "0");
  }
}
