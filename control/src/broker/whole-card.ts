// A card leased whole: opened by VFIO and its memory mapped behind the IOMMU by the broker, driven by the client. What
// maps memory, the iommufd or the container, stays here: whoever has the card can make it reach that memory, or nothing.
import { BifurcateError, errnoOf, messageOf } from "../errors.js";
import { cardError } from "../card/errors.js";
import type { LeaseRecord } from "../lease/record.js";
import type { GrantedLease, LeaseRequest } from "../protocol/messages.js";
import type { Audit } from "./audit.js";
import type { Live } from "./live.js";
import type { BrokerKernel, CardLoan, Descriptor, KeptMemory, LentCard } from "./machine.js";
import { LineError, type Setting } from "./policy-lines.js";

/** What memory is rounded up to: frames and rings each begin in a huge page of their own. */
const HUGE_PAGE = 2 * 2 ** 20;
/**
 * Bytes for a slot of a ring, in each direction, of whichever driver: virtio's are the largest, a descriptor of 16 bytes,
 * entries of 2 and 8, and an indirect table of 32, in a ring that is rounded up to a power of two.
 */
const SLOT = 128;
/** Bytes beside: virtio's control queue. */
const BESIDE = 65_536;
/** A PCI address (domain:bus:device.function), in full. */
const ADDRESS = /^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;

type Shape = Pick<LeaseRequest, "frames" | "frameSize" | "queues" | "ringSize">;

const roundUp = (bytes: number): number => Math.ceil(bytes / HUGE_PAGE) * HUGE_PAGE;

/** Bytes of the rings that a card is lent with. */
export function ringBytes({ queues, ringSize }: Shape): number {
  return roundUp(2 * queues * ringSize * SLOT + BESIDE);
}

/** Bytes of all the memory that a card is lent with. */
export function wholeBytes(request: Shape): number {
  return roundUp(request.frames * request.frameSize) + ringBytes(request);
}

/** Whether a lease is of a whole card. */
export function isWhole({ request }: Pick<LeaseRecord, "request">): boolean {
  return request.mechanism === "vfio";
}

/** What a rule of the policy with the mechanism vfio has to say, and must not. @throws LineError */
export function checkWholeRule(device: string, settings: readonly Setting[], line: number): void {
  const at = (key: string): Setting | undefined => settings.find((each) => each.key === key);
  const wrong = (key: string, why: string): LineError => new LineError(at(key)?.line ?? line, why);
  if (at("mechanism")!.value.includes(",")) throw wrong("mechanism", "'vfio' stands alone");
  if (!ADDRESS.test(device)) {
    throw wrong("device", `with mechanism = vfio the device is a PCI address such as 0000:01:00.0`);
  }
  for (const key of ["flow", "own-queues", "rate"]) {
    if (at(key) !== undefined) throw wrong(key, `'${key}' has no meaning for a card that is leased whole`);
  }
  if (at("transmit")?.value !== "raw") {
    throw wrong("transmit", "nothing checks what a card that is leased whole sends: say transmit = raw");
  }
  if (at("pass")?.value === "yes")
    throw wrong("pass", "a card that is leased whole has no way into the kernel");
}

/** @throws E_CARD_BUSY where another lease has the card, or E_LEASE_UNSUPPORTED where it cannot be held to a right. */
export function checkWhole(what: string, request: LeaseRequest, leases: readonly LeaseRecord[]): void {
  if (leases.some((each) => isWhole(each) && each.card.name === request.device)) {
    // Whose it is, is not for everybody to know.
    throw new BifurcateError("E_CARD_BUSY", {
      what,
      why: "it is leased already, or somebody still has it of a lease that has ended",
      next: "Wait until the other lease ends.",
    });
  }
  if (request.transmit === "raw" && !request.pass) return;
  throw new BifurcateError("E_LEASE_UNSUPPORTED", {
    what,
    why: request.pass
      ? "a card that is leased whole has no way into the kernel: pass"
      : `nothing checks what a card that is leased whole sends, so transmit is 'raw', not '${request.transmit}'`,
    next: "Ask for transmit 'raw' without pass, where the policy gives it; or lease a flow.",
  });
}

/** What was made. */
export interface OpenedCard {
  readonly lease: GrantedLease;
  /** In the order of PROTOCOL.md. */
  readonly descriptors: readonly Descriptor[];
  readonly loan: CardLoan;
  readonly kept: KeptMemory;
}

/**
 * @param known Whether this broker still has it.
 * @throws E_LEASE_REVOKED when the lease was taken back, or the broker has ended, while its card was being opened.
 */
export function checkWanted(what: string, { record }: Live, known: boolean): void {
  if (known && record.state === "reserved") return;
  const why = known ? "it was taken back while the card was being opened" : "the broker ends";
  throw new BifurcateError("E_LEASE_REVOKED", { what, why });
}

/** Opens the card, and maps its memory. @throws E_CARD_BUSY, E_CARD_NOT_TAKEN, E_CARD_GROUP, E_NO_MEMORY and others of cards. */
export async function openWhole(kernel: BrokerKernel, { id, request }: LeaseRecord): Promise<OpenedCard> {
  const { device, frames, frameSize, queues, ringSize } = request;
  const rings = ringBytes(request);
  const lent = await lend(kernel, request, rings);
  const lease: GrantedLease = {
    id,
    device,
    mechanism: "vfio",
    port: device,
    portQueues: Array.from({ length: queues }, (_, queue) => queue),
    mtu: 0,
    mac: "",
    queues,
    transmit: request.transmit,
    pass: false,
    frames,
    frameSize,
    jumboFrames: 0,
    ringSize,
    filled: 0,
    zeroCopy: true,
    needWakeup: false,
    multiBuffer: false,
    busyPoll: false,
    leftToCard: false,
    xdp: "driver",
    bypasses: ["the kernel: the card is leased whole"],
    notes: [],
    card: { iova: lent.iova, ringsAt: lent.ringsAt, ringBytes: rings },
  };
  return { lease, descriptors: [lent.memory, lent.device], loan: lent.loan, kept: lent.kept };
}

async function lend(kernel: BrokerKernel, request: LeaseRequest, rings: number): Promise<LentCard> {
  const { device, frames, frameSize, pages } = request;
  const what = `lease the card ${device}`;
  try {
    return await kernel.lendCard(device, frames * frameSize, rings, pages);
  } catch (thrown) {
    const [errno, why] = [errnoOf(thrown), messageOf(thrown)];
    if (errno === "EINVAL" && why.includes("BIND_IOMMUFD")) {
      throw new BifurcateError("E_CARD_BUSY", { what, why, cause: thrown });
    }
    if (errno === "EACCES" || errno === "ENOENT") {
      const next = `Have root prepare it: bifurcate take ${device} --for-broker`;
      throw new BifurcateError("E_CARD_NOT_TAKEN", { what, why, next, cause: thrown });
    }
    if (errno === "EPERM" && why.includes("BIND_IOMMUFD")) {
      // iommu_device_claim_dma_owner, drivers/iommu/iommu.c: a group has one owner, and each lease an iommufd of its own.
      const of = `another card of its IOMMU group is leased, or a kernel driver has one: ${why}`;
      const next =
        "Wait until that lease ends, or have root unbind the other; of one group one card is leased at a time.";
      throw new BifurcateError("E_CARD_BUSY", { what, why: of, next, cause: thrown });
    }
    // A device cgroup's word: file modes say EACCES.
    if (errno === "EPERM" && why.startsWith("open")) {
      const next = `Have bifurcated.service load vfio_pci and iommufd before it starts (its Wants= and After=), allow their devices, and take the card: bifurcate take ${device} --for-broker`;
      throw new BifurcateError("E_CARD_NOT_TAKEN", { what, why, next, cause: thrown });
    }
    if (errno === "ENOMEM") throw new BifurcateError("E_NO_MEMORY", { what, why, cause: thrown });
    throw cardError(thrown, what);
  }
}

/** A look at a card on a thread, and what it found: null while it is under way, or where that cannot be told. */
export interface CardLook {
  ended: boolean;
  found: boolean | null;
}

/** Of a card that is gone, or that vfio-pci has no longer, nobody has a descriptor. */
const unseen = (thrown: unknown): false | null =>
  ["ENODEV", "ENOENT", "ENXIO"].includes(errnoOf(thrown) ?? "") ? false : null;

/**
 * Whether somebody has the card open; what cannot be told now counts as held, since the next lease would be of a card that
 * another drives. Its IOMMU group tells at once. Where that tells nothing, for another card of it may be the one that is
 * open, or there is no file of it, the card's own file tells: opening that waits for a lock which a holder's ioctls take
 * too, and resets a card that is free. So it is done on a thread; and the next call tells what was found. Nobody but the
 * lease's client has the card while there is the lease: one that was free then is free.
 * @returns null where it cannot be told now.
 */
export function isCardHeld(kernel: BrokerKernel, live: Live): boolean | null {
  if (live.look !== undefined) {
    const { ended, found } = live.look;
    if (ended) delete live.look;
    return found;
  }
  const { name } = live.record.card;
  try {
    const told = kernel.isCardHeld(name);
    if (told !== null) return told;
    const look: CardLook = { ended: false, found: null };
    const end = (found: boolean | null): void => void Object.assign(look, { ended: true, found });
    kernel.lookAtCard(name).then(end, (thrown: unknown) => end(unseen(thrown)));
    live.look = look;
    return null;
  } catch (thrown) {
    return unseen(thrown);
  }
}

/** Takes the memory from the card, also where somebody still drives it; nothing where the broker that lent it is dead. */
export function takeMemory(live: Live, audit: Audit): void {
  const { loan, record } = live;
  delete live.loan;
  try {
    loan?.revoke();
  } catch (thrown) {
    // Taken already: nothing was mapped.
    if (errnoOf(thrown) === "ENOENT") return;
    const [lease, device, why] = [record.id, record.card.name, messageOf(thrown)];
    audit.write({ event: "undo", outcome: "E_UNDO_INCOMPLETE", lease, device, why });
  } finally {
    loan?.close();
  }
}

/**
 * Gives the memory's pages back, also where the client keeps the file: what a lease had does not add up over leases.
 * Whoever touches it again gets new pages.
 */
export function freeMemory(live: Live, audit: Audit): void {
  const { kept, record } = live;
  delete live.kept;
  try {
    kept?.discard();
  } catch (thrown) {
    const [lease, device, why] = [record.id, record.card.name, messageOf(thrown)];
    audit.write({ event: "undo", outcome: "left", lease, device, why });
  } finally {
    kept?.close();
  }
}
