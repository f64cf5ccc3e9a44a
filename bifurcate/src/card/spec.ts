// A card taken whole, by a word: "pci:0000:01:10.0,via=vfio,queues=2".

import { BifurcateError } from "@bifurcate/control/errors";
import { MECHANISMS, type Mechanism } from "@bifurcate/control/card/mechanism";

/** What a card is opened with. */
export interface CardSpec {
  /** Where it sits, as 0000:01:10.0. */
  readonly address: string;
  readonly via: Mechanism;
  /** A broker opens it, and this process needs no right (`via=broker`). */
  readonly broker: boolean;
  /** The user said that the card may reach all memory. */
  readonly noMemoryProtection: boolean;
  readonly queues: number;
  /** Frames of the pool. */
  readonly frames: number;
  readonly frameSize: 2048 | 4096;
  /** Long frames of the pool, for packets longer than a frame: virtio alone. */
  readonly jumboFrames: number;
  /** Slots of each ring. */
  readonly ringSize: number;
  /** Every frame on the wire, not only those addressed to the card. */
  readonly promiscuous: boolean;
  /** Sleep until a frame comes, by the card's interrupts; else the queues are polled. */
  readonly interrupts: boolean;
  /** Rings in the packed layout: virtio alone. */
  readonly packed: boolean;
  /** An address other than the card's own. */
  readonly mac?: string;
}

const KEYS =
  "via, noMemoryProtection, queues, frames, frameSize, jumboFrames, ringSize, promiscuous, interrupts, packed and mac";

function bad(spec: string, why: string): BifurcateError {
  return new BifurcateError("E_BAD_OPTION", {
    what: `open ${spec}`,
    why,
    next: `Write for example pci:0000:01:10.0,via=vfio,queues=2; the keys are ${KEYS}.`,
  });
}

function number(spec: string, key: string, value: string, least: number, most: number): number {
  const read = /^[0-9]{1,9}$/.test(value) ? Number(value) : NaN;
  if (!(read >= least && read <= most)) throw bad(spec, `${key} is a whole number from ${least} to ${most}`);
  return read;
}

function yesOrNo(spec: string, key: string, value: string): boolean {
  if (value !== "yes" && value !== "no") throw bad(spec, `${key} is yes or no`);
  return value === "yes";
}

/** Whether a word is a card's, not an interface. */
export function isCardSpec(word: string): boolean {
  return word.startsWith("pci:");
}

/** Reads "pci:ADDRESS" or "pci:ADDRESS,key=value,...". @throws E_BAD_OPTION */
export function parseCardSpec(spec: string): CardSpec {
  const [address = "", ...pairs] = spec.slice("pci:".length).split(",");
  if (!/^(?:[0-9a-f]{1,4}:)?[0-9a-f]{1,2}:[01]?[0-9a-f]\.[0-7]$/i.test(address)) {
    throw bad(spec, `'${address}' is no address of a PCI card`);
  }
  const found = {
    via: "vfio" as Mechanism,
    broker: false,
    noMemoryProtection: false,
    queues: 1,
    frames: 0,
    frameSize: 2048 as 2048 | 4096,
    jumboFrames: 0,
    ringSize: 512,
    promiscuous: true,
    interrupts: false,
    packed: false,
    mac: undefined as string | undefined,
  };
  for (const pair of pairs) {
    const [key, value = ""] = pair.split("=", 2) as [string, string | undefined];
    switch (key) {
      case "via": {
        const via = MECHANISMS.find((name) => name === value);
        found.broker = value === "broker";
        if (via === undefined && !found.broker)
          throw bad(spec, `via is one of ${MECHANISMS.join(", ")}, or broker`);
        found.via = via ?? "vfio";
        break;
      }
      case "queues":
        found.queues = number(spec, key, value, 1, 16);
        break;
      case "frames":
        found.frames = number(spec, key, value, 256, 2 ** 19);
        break;
      case "frameSize":
        if (value !== "2048" && value !== "4096") throw bad(spec, "frameSize is 2048 or 4096");
        found.frameSize = Number(value) as 2048 | 4096;
        break;
      case "jumboFrames":
        found.jumboFrames = number(spec, key, value, 0, 4096);
        break;
      case "ringSize":
        found.ringSize = number(spec, key, value, 64, 4096);
        if ((found.ringSize & (found.ringSize - 1)) !== 0) throw bad(spec, "ringSize is a power of two");
        break;
      case "noMemoryProtection":
      case "promiscuous":
      case "interrupts":
      case "packed":
        found[key] = yesOrNo(spec, key, value);
        break;
      case "mac":
        if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(value)) throw bad(spec, "mac is as 02:00:00:00:00:01");
        found.mac = value;
        break;
      default:
        throw bad(spec, `'${key}' is not a key`);
    }
  }
  const { mac, frames, ...rest } = found;
  // Rings are full of frames: as many again are on their way out, in handlers and in caches.
  const enough = Math.max(2048, 4 * found.ringSize * found.queues);
  return { address, ...rest, frames: frames || enough, ...(mac === undefined ? {} : { mac }) };
}
