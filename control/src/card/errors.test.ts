// What the addon says of a card, as errors with codes.
import { expect, it } from "vitest";
import { cardError } from "./errors.js";

const thrown = (code: string, message: string) => Object.assign(new Error(message), { code });

it("says of a card without an interrupt that this is what was refused, not that nobody knows the card", () => {
  // As linux/src/error.rs words it.
  const words =
    "interrupts address=0000:01:10.0 via=uio_pci_generic: this mechanism gives this card no interrupt: Operation not supported (EOPNOTSUPP)";
  const error = cardError(thrown("EOPNOTSUPP", words), "open pci:0000:01:10.0");
  expect(error).toMatchObject({
    code: "E_NO_INTERRUPT",
    why: `interrupts=yes is refused: ${words}`,
    status: 77,
  });
  expect(error.next).toContain("interrupts=no");
  expect(error.next).toContain("VFIO");
});

it.each([
  ["EOPNOTSUPP", "pci address=0000:01:00.0 id=8086:1563: no driver here knows it", "E_CARD_UNKNOWN"],
  ["EOPNOTSUPP", "virtio packed=yes: the device does not offer VIRTIO_F_RING_PACKED", "E_CARD_UNKNOWN"],
  ["EBUSY", "pci address=0000:01:00.0: another process has it", "E_CARD_BUSY"],
  ["ENXIO", "pci address=0000:01:00.0 via=vfio: igb has it, and vfio-pci should", "E_CARD_NOT_TAKEN"],
  ["EPERM", "vfio group=12 is shared with 0000:01:00.1 (igb)", "E_CARD_GROUP"],
])("knows %s of '%s'", (errno, words, code) => {
  expect(cardError(thrown(errno, words), "open a card").code).toBe(code);
});
