// What can be opened by a word: "loopback:queues=2,order=cold", "vhost-user:/run/vm0.sock,server", "verbs:rxe0,...".

import { isIP } from "node:net";
import { BifurcateError } from "@bifurcate/control/errors";
import { isCardSpec, parseCardSpec } from "./card/spec.js";

/** What the loopback device is asked for. */
export interface LoopbackSpec {
  readonly device: "loopback";
  readonly queues: number;
  /** Frames of the pool. */
  readonly frames: number;
  readonly frameSize: 2048 | 4096;
  /** Length of the frames that it makes, in bytes. */
  readonly length: number;
  /** hot: the frame freed last is received next; cold: a walk through the whole pool. */
  readonly order: "hot" | "cold";
}

/** What an end of a vhost-user socket is asked for. */
export interface SocketSpec {
  /** "vhost-user" is the device's end, which a guest attaches to; "virtio-user" the driver's. */
  readonly device: "vhost-user" | "virtio-user";
  /** The socket. */
  readonly path: string;
  /** Listen there; otherwise connect to who does. */
  readonly server: boolean;
  /** Queue pairs. */
  readonly queues: number;
  /** Frames of the pool. */
  readonly frames: number;
  readonly frameSize: 2048 | 4096;
  /** Frames of 68 KiB for packets longer than a frame. */
  readonly jumboFrames: number;
  /** Slots of each ring; the device's end takes what its driver has. */
  readonly ringSize: number;
  /** The layout of rings: what the driver insists on (split when null); at the device end `split` offers no packed ones. */
  readonly layout: "packed" | "split" | null;
  /** Never sleep while nothing comes. */
  readonly busyPoll: boolean;
}

/** An address and a port of TCP. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** What queue pairs of an RDMA device are asked for. */
export interface VerbsSpec {
  readonly device: "verbs";
  /** The RDMA device, e.g. "mlx5_0". */
  readonly name: string;
  /** Its port, from 1. */
  readonly port: number;
  /**
   * How the two ends of datagrams find each other: one listens, the other connects. null: raw packets, which flow rules
   * of the card bring.
   */
  readonly meeting: { readonly listens: boolean; readonly at: Endpoint } | null;
  /** Which of the port's addresses; null: one for RoCE version 2. */
  readonly gid: number | null;
  /** Queue pairs. */
  readonly queues: number;
  /** Frames of the pool. */
  readonly frames: number;
  readonly frameSize: 2048 | 4096;
  /** Work requests of each side of a queue pair. */
  readonly ringSize: number;
  /** Never sleep while nothing comes. */
  readonly busyPoll: boolean;
}

/** A device that is no card of our own driver's. */
export type Spec = LoopbackSpec | SocketSpec | VerbsSpec;

/** The devices, and an example of each. */
const EXAMPLES = {
  loopback: "loopback:queues=2,order=cold; the keys are queues, frames, frameSize, length and order",
  "vhost-user":
    "vhost-user:/run/vm0.sock,server,queues=2; the keys are server, queues, frames, frameSize, jumboFrames, layout and busyPoll",
  "virtio-user":
    "virtio-user:/run/device.sock,queues=2; the keys are server, queues, frames, frameSize, jumboFrames, ringSize, layout and busyPoll",
  verbs:
    "verbs:mlx5_0, or verbs:rxe0,server=192.0.2.1:7471 and at the other end verbs:rxe0,peer=192.0.2.1:7471; " +
    "the keys are server, peer, port, gid, queues, frames, frameSize, ringSize and busyPoll",
} as const;
type Device = keyof typeof EXAMPLES;
const DEVICES = Object.keys(EXAMPLES) as Device[];

/** sun_path of unix(7) has 108 bytes, the last one a zero. */
const PATH_MAX = 107;
/** As many as DPDK's virtio-user and QEMU take when nothing is said. */
const RING_SIZE = 256;
/** The ring's number has eight bits in a vhost-user message, and a pair has two rings. */
const PAIRS_MAX = 127;
const FRAMES_A_QUEUE = 4096;
const JUMBO_FRAMES_A_QUEUE = 48;

/** Whether a word is a spec, not an interface: no interface is named like a device and a colon. */
export function isSpec(word: string): boolean {
  const [device] = word.split(":", 1) as [string];
  return (
    isCardSpec(word) || word === "loopback" || (word.includes(":") && DEVICES.some((each) => each === device))
  );
}

/** Checks a word that isSpec() knows. @throws E_BAD_OPTION */
export function checkSpec(word: string): void {
  if (isCardSpec(word)) parseCardSpec(word);
  else parseSpec(word);
}

/** Reads one part after another, and complains in the words of the spec. */
class Reader {
  private readonly found = new Map<string, string | undefined>();

  constructor(
    private readonly spec: string,
    private readonly device: Device,
    keys: readonly string[],
    parts: readonly string[],
  ) {
    for (const part of parts.filter((text) => text !== "")) {
      const [key, value] = part.split(/=(.*)/s, 2) as [string, string | undefined];
      if (!keys.includes(key)) throw this.bad(`'${key}' is not a key`);
      if (this.found.has(key)) throw this.bad(`${key} is given twice`);
      this.found.set(key, value);
    }
  }

  bad(why: string): BifurcateError {
    const what = `open ${this.spec}`;
    return new BifurcateError("E_BAD_OPTION", {
      what,
      why,
      next: `Write for example ${EXAMPLES[this.device]}.`,
    });
  }

  /** A whole number within limits. */
  whole(key: string, fallback: number, least: number, most: number): number {
    if (!this.found.has(key)) return fallback;
    const value = this.found.get(key);
    if (value === undefined || !/^[0-9]{1,9}$/.test(value)) throw this.bad(`${key} is a whole number`);
    const number = Number(value);
    if (number < least || number > most) throw this.bad(`${key} is ${least} to ${most}`);
    return number;
  }

  /** One of a few words. */
  choice<const T extends string>(key: string, choices: readonly T[]): T | null {
    if (!this.found.has(key)) return null;
    const choice = choices.find((each) => each === this.found.get(key));
    if (choice === undefined) throw this.bad(`${key} is ${choices.join(" or ")}`);
    return choice;
  }

  /** An address and a port of TCP, or null. */
  endpoint(key: string): Endpoint | null {
    if (!this.found.has(key)) return null;
    const [, six, four, port] = /^(?:\[(.+)\]|([^:]+)):([0-9]{1,5})$/.exec(this.found.get(key) ?? "") ?? [];
    const address = six ?? four ?? "";
    const version = six === undefined ? 4 : 6;
    if (isIP(address) !== version || Number(port) > 65_535) {
      throw this.bad(`${key} is an address and a port, as 192.0.2.1:7471 or [2001:db8::1]:7471`);
    }
    return { address, port: Number(port) };
  }

  /** A word that stands alone. */
  flag(key: string): boolean {
    if (this.found.get(key) !== undefined) throw this.bad(`${key} takes no value`);
    return this.found.has(key);
  }

  frameSize(): 2048 | 4096 {
    return this.choice("frameSize", ["2048", "4096"]) === "4096" ? 4096 : 2048;
  }

  /** Frames of the pool, which JavaScript sees as one buffer. */
  frames(fallback: number, size: number): number {
    const frames = this.whole("frames", fallback, 0, 999_999_999);
    if (frames >= 64 && frames * size < 2 ** 31) return frames;
    throw this.bad("frames is at least 64, and all of them less than 2 GiB");
  }
}

/**
 * Reads "loopback:key=value,..." or "vhost-user:/path,server,key=value,...".
 * @throws E_BAD_OPTION
 */
export function parseSpec(spec: string): Spec {
  const [device, rest = ""] = spec.split(/:(.*)/s, 2) as [string, string | undefined];
  if (device === "loopback") return loopback(spec, rest);
  if (device === "vhost-user" || device === "virtio-user") return socket(spec, device, rest);
  if (device === "verbs") return verbs(spec, rest);
  throw new BifurcateError("E_BAD_OPTION", {
    what: `open ${spec}`,
    why: `there is no device named '${device}'; there are: ${DEVICES.join(", ")}`,
    next: `Write for example ${EXAMPLES["vhost-user"]}.`,
  });
}

function loopback(spec: string, rest: string): LoopbackSpec {
  const keys = ["queues", "frames", "frameSize", "length", "order"];
  const reader = new Reader(spec, "loopback", keys, rest.split(","));
  const frameSize = reader.frameSize();
  return {
    device: "loopback",
    queues: reader.whole("queues", 1, 1, 64),
    frames: reader.frames(4096, frameSize),
    frameSize,
    length: reader.whole("length", 60, 14, frameSize - 256),
    order: reader.choice("order", ["hot", "cold"]) ?? "hot",
  };
}

function socket(spec: string, device: SocketSpec["device"], rest: string): SocketSpec {
  const [path = "", ...parts] = rest.split(",");
  const keys = ["server", "queues", "frames", "frameSize", "jumboFrames", "layout", "busyPoll"];
  if (device === "virtio-user") keys.push("ringSize");
  const reader = new Reader(spec, device, keys, parts);
  if (path === "") throw reader.bad("the path of the socket is missing");
  if (path.includes("\0")) throw reader.bad("the path of the socket holds a zero byte");
  const bytes = Buffer.byteLength(path);
  if (bytes > PATH_MAX)
    throw reader.bad(`the path of a socket has at most ${PATH_MAX} bytes, this one ${bytes}`);
  const queues = reader.whole("queues", 1, 1, PAIRS_MAX);
  const ringSize = reader.whole("ringSize", RING_SIZE, 2, 32_768);
  if (!Number.isInteger(Math.log2(ringSize))) throw reader.bad("ringSize is a power of two");
  const frameSize = reader.frameSize();
  // What the rings hold, and as much again to handle and to send.
  const least = device === "virtio-user" ? 4 * ringSize : 0;
  const frames = reader.frames(Math.max(FRAMES_A_QUEUE, least) * queues, frameSize);
  if (frames < (least / 2) * queues) {
    throw reader.bad(
      `frames is at least ${(least / 2) * queues}: so many stand in ${2 * queues} rings of ${ringSize}`,
    );
  }
  return {
    device,
    path,
    server: reader.flag("server"),
    queues,
    frames,
    frameSize,
    jumboFrames: reader.whole("jumboFrames", JUMBO_FRAMES_A_QUEUE * queues, 0, 16_384),
    ringSize,
    layout: reader.choice("layout", ["packed", "split"]),
    busyPoll: reader.flag("busyPoll"),
  };
}

function verbs(spec: string, rest: string): VerbsSpec {
  const [name = "", ...parts] = rest.split(",");
  const keys = ["server", "peer", "port", "gid", "queues", "frames", "frameSize", "ringSize", "busyPoll"];
  const reader = new Reader(spec, "verbs", keys, parts);
  // IB_DEVICE_NAME_MAX of the kernel's include/rdma/ib_verbs.h is 64, its zero included.
  if (!/^[\w.-]{1,63}$/.test(name)) throw reader.bad("the name of the RDMA device is missing, or is none");
  const [server, peer] = [reader.endpoint("server"), reader.endpoint("peer")];
  if (server !== null && peer !== null)
    throw reader.bad("server and peer exclude each other: one end listens");
  const at = server ?? peer;
  const queues = reader.whole("queues", 1, 1, 16);
  const gid = reader.whole("gid", -1, 0, 255);
  if (at === null && gid >= 0) throw reader.bad("gid is of datagrams, which need server or peer");
  const ringSize = reader.whole("ringSize", RING_SIZE, 16, 16_384);
  if (!Number.isInteger(Math.log2(ringSize))) throw reader.bad("ringSize is a power of two");
  const frameSize = reader.frameSize();
  const least = 4 * ringSize;
  const frames = reader.frames(Math.max(FRAMES_A_QUEUE, least) * queues, frameSize);
  if (frames < (least / 2) * queues) {
    throw reader.bad(
      `frames is at least ${(least / 2) * queues}: so many stand in ${2 * queues} rings of ${ringSize}`,
    );
  }
  return {
    device: "verbs",
    name,
    port: reader.whole("port", 1, 1, 255),
    meeting: at === null ? null : { listens: server !== null, at },
    gid: gid < 0 ? null : gid,
    queues,
    frames,
    frameSize,
    ringSize,
    busyPoll: reader.flag("busyPoll"),
  };
}
