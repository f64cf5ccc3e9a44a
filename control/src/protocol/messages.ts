// The messages between a broker and its clients, as PROTOCOL.md specifies them: types, and the one parser of both ends.
import { isErrorCode, type ErrorCode, type ErrorJson } from "../errors.js";
import type { LeaseState } from "../lease/state.js";
import { BadMessage, Fields } from "./fields.js";

/** The versions that this end speaks, best first. */
export const VERSIONS: readonly number[] = [3, 2, 1];

/** Most bytes of a client's message. */
export const LONGEST = 32_768;
/** Most bytes of a broker's. */
export const ANSWER_LONGEST = 32 * LONGEST;
/** A page of leases ends with the one that makes it this long, bytes: a socket's buffer takes some 200 KiB. */
export const PAGE_BYTES = 64 * 1024;

/** Most flows of a lease, and most characters of one. */
export const FLOWS_MOST = 16;
const FLOW_LONGEST = 1_024;
const NAME_LONGEST = 64;
/** IFNAMSIZ less the NUL (include/uapi/linux/if.h). */
const IFNAME_LONGEST = 15;
const REQUEST_MOST = 0xffff_ffff;

/** What may be sent: nothing; what the kernel checks to be the lease's own; anything. */
export type Transmit = "none" | "own" | "raw";
export const TRANSMIT: readonly Transmit[] = ["none", "own", "raw"];

/**
 * Where the client's sockets are bound: a lease port, a queue of the card, or, since version 2, a lease port in a
 * network namespace of the client's own, where it makes its sockets itself. Since version 3 no socket: the card itself,
 * by VFIO.
 */
export type Mechanism = "port" | "queue" | "foreign" | "vfio";
export const MECHANISMS: readonly Mechanism[] = ["port", "queue", "foreign", "vfio"];
const CURSOR_LONGEST = 128;

/** What a client asks for. */
export interface LeaseRequest {
  /** An interface; of the mechanism vfio the PCI address of a card, as 0000:01:00.0. */
  readonly device: string;
  /** None of the mechanism vfio. */
  readonly flows: readonly string[];
  readonly mechanism: "auto" | Mechanism;
  readonly transmit: Transmit;
  readonly pass: boolean;
  readonly queues: number;
  /** Frames of the pool. */
  readonly frames: number;
  readonly frameSize: 2048 | 4096;
  /** Entries of each ring. */
  readonly ringSize: number;
  readonly zeroCopy: "require" | "prefer" | "off";
  readonly busyPoll: boolean;
  readonly pages: "auto" | "huge" | "ordinary";
}

/** Where the memory of a card that is leased whole lies. */
export interface CardMemory {
  /** The I/O address of the memory file's first byte, where the pool begins. */
  readonly iova: number;
  /** Where in the file the rings begin. */
  readonly ringsAt: number;
  /** Bytes of the rings. */
  readonly ringBytes: number;
}

/** What a client is told of the lease whose descriptors come with the message. */
export interface GrantedLease {
  readonly id: string;
  readonly device: string;
  readonly mechanism: Mechanism;
  /** The interface that the sockets are bound to. */
  readonly port: string;
  /** Its queues that they are bound to, in the order of the sockets. */
  readonly portQueues: readonly number[];
  /** The port's MTU, in bytes. */
  readonly mtu: number;
  readonly mac: string;
  /** Number of sockets; with `pass` as many queues of the return port. */
  readonly queues: number;
  readonly transmit: Transmit;
  readonly pass: boolean;
  readonly frames: number;
  readonly frameSize: 2048 | 4096;
  readonly jumboFrames: number;
  readonly ringSize: number;
  /** Chunks in each fill ring at the handover. */
  readonly filled: number;
  readonly zeroCopy: boolean;
  readonly needWakeup: boolean;
  readonly multiBuffer: boolean;
  readonly busyPoll: boolean;
  /** The senders behind the card leave checksums and segmentation to it. */
  readonly leftToCard: boolean;
  /** Where the XDP program on the card runs. */
  readonly xdp: "driver" | "generic";
  /** Whose view of the flow ends, e.g. "nftables and iptables". */
  readonly bypasses: readonly string[];
  readonly notes: readonly string[];
  /** Of the mechanism vfio, and of no other. */
  readonly card?: CardMemory;
}

/** A lease in a list. */
export interface ListedLease {
  readonly id: string;
  readonly state: LeaseState;
  readonly device: string;
  readonly flows: readonly string[];
  readonly mechanism: Mechanism;
  readonly transmit: Transmit;
  readonly pass: boolean;
  readonly uid: number;
  readonly pid: number;
  /** Bytes of its pool. */
  readonly memory: number;
  /** ISO 8601. */
  readonly since: string;
}

/** What a client sends. Every request but the first carries a number that its answer repeats. */
export type ClientMessage =
  | { readonly type: "hello"; readonly versions: readonly number[]; readonly name: string }
  | { readonly type: "lease"; readonly request: number; readonly lease: LeaseRequest }
  | { readonly type: "return"; readonly request: number; readonly lease: string }
  | { readonly type: "resume"; readonly request: number; readonly lease: string }
  | { readonly type: "release"; readonly request: number; readonly lease: string }
  /** `after`: what the page before gave as `next`. */
  | { readonly type: "list"; readonly request: number; readonly after?: string };

/** What a broker sends. */
export type BrokerMessage =
  | {
      readonly type: "welcome";
      readonly version: number;
      readonly broker: string;
      readonly pid: number;
      /** Inode of the network namespace that it serves. */
      readonly netns: number;
    }
  | { readonly type: "granted"; readonly request: number; readonly lease: GrantedLease }
  | { readonly type: "done"; readonly request: number }
  | {
      readonly type: "leases";
      readonly request: number;
      readonly leases: readonly ListedLease[];
      /** There are more: where they go on. */
      readonly next?: string;
    }
  | { readonly type: "revoked"; readonly lease: string; readonly why: string }
  | { readonly type: "error"; readonly request: number | null; readonly error: ErrorJson["error"] };

const decoder = new TextDecoder("utf-8", { fatal: true });

/** A message as it is sent. */
export function encode(message: ClientMessage | BrokerMessage): Uint8Array {
  return Buffer.from(JSON.stringify(message));
}

function fieldsOf(bytes: Uint8Array, longest: number): Fields {
  if (bytes.length > longest) throw new BadMessage(`the message has more than ${longest} bytes`);
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw new BadMessage("the message is not UTF-8");
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new BadMessage("the message is not JSON");
  }
  return Fields.of(value, "message");
}

const CLIENT_TYPES = ["hello", "lease", "return", "resume", "release", "list"] as const;
const BROKER_TYPES = ["welcome", "granted", "done", "leases", "revoked", "error"] as const;

/** Reads what a client sent. @throws BadMessage */
export function parseClientMessage(bytes: Uint8Array): ClientMessage {
  const fields = fieldsOf(bytes, LONGEST);
  const type = fields.word("type", CLIENT_TYPES);
  if (type === "hello") {
    const versions = fields.list("versions", 16, (each, where) => {
      if (typeof each === "number" && Number.isInteger(each) && each > 0) return each;
      throw new BadMessage(`${where} is no version number`);
    });
    return { type, versions, name: fields.has("name") ? fields.text("name", NAME_LONGEST) : "" };
  }
  const request = fields.number("request", 0, REQUEST_MOST);
  switch (type) {
    case "lease":
      return { type, request, lease: leaseRequest(fields.object("lease")) };
    case "list":
      return { type, request, ...cursor(fields, "after") };
    default:
      return { type, request, lease: fields.text("lease", NAME_LONGEST) };
  }
}

function cursor<N extends string>(fields: Fields, name: N): { readonly [name in N]?: string } {
  if (!fields.has(name)) return {};
  return { [name]: fields.text(name, CURSOR_LONGEST) } as { [name in N]: string };
}

function flowText(value: unknown, where: string): string {
  if (typeof value === "string" && value.length <= FLOW_LONGEST) return value;
  throw new BadMessage(`${where} is no text of at most ${FLOW_LONGEST} characters`);
}

function powerOfTwo(fields: Fields, name: string, least: number, most: number): number {
  const value = fields.number(name, least, most);
  if ((value & (value - 1)) !== 0) throw new BadMessage(`message.lease.${name} is no power of two`);
  return value;
}

function frameSize(fields: Fields): 2048 | 4096 {
  const size = fields.number("frameSize", 2048, 4096);
  if (size !== 2048 && size !== 4096) throw new BadMessage("message.lease.frameSize is 2048 or 4096");
  return size;
}

function leaseRequest(fields: Fields): LeaseRequest {
  const flows = fields.list("flows", FLOWS_MOST, flowText);
  const mechanism = fields.word("mechanism", ["auto", ...MECHANISMS]);
  const whole = mechanism === "vfio";
  if (whole !== (flows.length === 0)) {
    throw new BadMessage(whole ? "message.lease.flows is not empty" : "message.lease.flows is empty");
  }
  return {
    device: fields.text("device", IFNAME_LONGEST),
    flows,
    mechanism,
    transmit: fields.word("transmit", TRANSMIT),
    pass: fields.flag("pass"),
    queues: fields.number("queues", 1, 64),
    frames: fields.number("frames", 64, 1 << 19),
    frameSize: frameSize(fields),
    ringSize: powerOfTwo(fields, "ringSize", 32, 1 << 15),
    zeroCopy: fields.word("zeroCopy", ["require", "prefer", "off"]),
    busyPoll: fields.flag("busyPoll"),
    pages: fields.word("pages", ["auto", "huge", "ordinary"]),
  };
}

/** Reads what a broker sent. @throws BadMessage */
export function parseBrokerMessage(bytes: Uint8Array): BrokerMessage {
  const fields = fieldsOf(bytes, ANSWER_LONGEST);
  const type = fields.word("type", BROKER_TYPES);
  switch (type) {
    case "welcome":
      return {
        type,
        version: fields.number("version", 1, 65_535),
        broker: fields.text("broker", NAME_LONGEST),
        pid: fields.number("pid", 0, REQUEST_MOST),
        netns: fields.number("netns", 0, Number.MAX_SAFE_INTEGER),
      };
    case "revoked":
      return { type, lease: fields.text("lease", NAME_LONGEST), why: fields.text("why", LONGEST) };
    case "error":
      return {
        type,
        request: fields.has("request") ? fields.number("request", 0, REQUEST_MOST) : null,
        error: errorOf(fields.object("error")),
      };
    default: {
      const request = fields.number("request", 0, REQUEST_MOST);
      if (type === "granted") return { type, request, lease: grantedLease(fields.object("lease")) };
      if (type === "leases") {
        const leases = fields.list("leases", 100_000, listedLease);
        return { type, request, leases, ...cursor(fields, "next") };
      }
      return { type, request };
    }
  }
}

function errorOf(fields: Fields): ErrorJson["error"] {
  const named = fields.text("code", NAME_LONGEST);
  // A newer broker may know codes that this client does not.
  const code: ErrorCode = isErrorCode(named) ? named : "E_SYSTEM";
  const words = (name: string): string => fields.lines(name, LONGEST);
  return { code, what: words("what"), why: words("why"), next: words("next") };
}

function grantedLease(fields: Fields): GrantedLease {
  const queues = fields.number("queues", 1, 64);
  // A broker of before there were own queues says nothing: a port's queues count from 0.
  const portQueues = fields.has("portQueues")
    ? fields.list("portQueues", 64, queueNumber)
    : Array.from({ length: queues }, (_, queue) => queue);
  const mechanism = fields.word("mechanism", MECHANISMS);
  return {
    id: fields.text("id", NAME_LONGEST),
    device: fields.text("device", IFNAME_LONGEST),
    mechanism,
    port: fields.text("port", IFNAME_LONGEST),
    portQueues,
    mtu: fields.number("mtu", 0, 1 << 20),
    mac: fields.text("mac", NAME_LONGEST),
    queues,
    transmit: fields.word("transmit", TRANSMIT),
    pass: fields.flag("pass"),
    frames: fields.number("frames", 1, 1 << 20),
    frameSize: frameSize(fields),
    jumboFrames: fields.number("jumboFrames", 0, 1 << 16),
    ringSize: powerOfTwo(fields, "ringSize", 1, 1 << 15),
    filled: fields.number("filled", 0, 1 << 15),
    zeroCopy: fields.flag("zeroCopy"),
    needWakeup: fields.flag("needWakeup"),
    multiBuffer: fields.flag("multiBuffer"),
    busyPoll: fields.flag("busyPoll"),
    leftToCard: fields.flag("leftToCard"),
    xdp: fields.word("xdp", ["driver", "generic"]),
    bypasses: fields.list("bypasses", 64, (each) => String(each)),
    notes: fields.list("notes", 64, (each) => String(each)),
    ...(mechanism === "vfio" ? { card: cardMemory(fields.object("card")) } : {}),
  };
}

function cardMemory(fields: Fields): CardMemory {
  return {
    iova: fields.number("iova", 0, Number.MAX_SAFE_INTEGER),
    ringsAt: fields.number("ringsAt", 1, 2 ** 31),
    ringBytes: fields.number("ringBytes", 1, 2 ** 31),
  };
}

function queueNumber(value: unknown, where: string): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 0xffff) return value;
  throw new BadMessage(`${where} is no queue's number`);
}

function listedLease(value: unknown, where: string): ListedLease {
  const fields = Fields.of(value, where);
  return {
    id: fields.text("id", NAME_LONGEST),
    state: fields.word("state", ["free", "reserved", "granted", "revoked", "draining"]),
    device: fields.text("device", IFNAME_LONGEST),
    flows: fields.list("flows", FLOWS_MOST, flowText),
    mechanism: fields.word("mechanism", MECHANISMS),
    transmit: fields.word("transmit", TRANSMIT),
    pass: fields.flag("pass"),
    uid: fields.number("uid", 0, REQUEST_MOST),
    pid: fields.number("pid", 0, REQUEST_MOST),
    memory: fields.number("memory", 0, Number.MAX_SAFE_INTEGER),
    since: fields.text("since", NAME_LONGEST),
  };
}
