// The packet that is measured with: UDP over IPv6 between link-local addresses, with a number and the time of sending.

/** Bytes of the frame: Ethernet 14, IPv6 40, UDP 8, and the payload. */
export const FRAME_BYTES = 78;
/** Where the payload begins. */
export const PAYLOAD_AT = 62;
/** The payload: number (4 bytes), nanoseconds of CLOCK_MONOTONIC (8 bytes, the high word first), 4 of nothing. */
const PAYLOAD_BYTES = FRAME_BYTES - PAYLOAD_AT;
const UDP_AT = 54;
const WORD = 2 ** 32;

/** The UDP port of the measured flow: of the range for private use (RFC 6335, 6). */
export const FLOW_PORT = 52014;
/** That of the echo server for the kernel's own traffic. */
export const ECHO_PORT = 52015;

/** The measured flow as an expression: all of it, or what is sent to one MAC address. */
export function flowTo(mac: string | null): string {
  return `${mac === null ? "" : `ether dst ${mac} and `}udp dst port ${FLOW_PORT}`;
}

/** Whether a frame is one of the flow: where a port gets a whole card, others' frames come with it. */
export function isOurs(view: DataView, at: number, size: number): boolean {
  return (
    size >= FRAME_BYTES && view.getUint16(at + 12) === 0x86dd && view.getUint16(at + UDP_AT + 2) === FLOW_PORT
  );
}

/** One end of the wire. */
export interface End {
  readonly mac: string;
  /** Its link-local address, without a zone. */
  readonly address: string;
}

/** The bytes of an IPv6 address without a zone. */
export function addressBytes(address: string): Uint8Array {
  const [head = "", tail] = address.split("::") as [string, string?];
  const groups = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
  const first = groups(head);
  const last = tail === undefined ? [] : groups(tail);
  const middle = Array.from({ length: tail === undefined ? 0 : 8 - first.length - last.length }, () => 0);
  return Uint8Array.from([...first, ...middle, ...last].flatMap((group) => [group >> 8, group & 0xff]));
}

/** Writes the packet's numbers and a right checksum, which UDP over IPv6 has to have (RFC 8200, 8.1). */
export class Packet {
  /** The frame with number and time zero. */
  readonly bytes = new Uint8Array(FRAME_BYTES);
  /** The sum of everything that the checksum covers, but for number and time. */
  private readonly sum: number;

  constructor(from: End, to: End) {
    const { bytes } = this;
    const view = new DataView(bytes.buffer);
    bytes.set(macBytes(to.mac), 0);
    bytes.set(macBytes(from.mac), 6);
    view.setUint16(12, 0x86dd);
    view.setUint32(14, 0x60000000);
    view.setUint16(18, 8 + PAYLOAD_BYTES);
    view.setUint8(20, 17);
    view.setUint8(21, 64);
    bytes.set(addressBytes(from.address), 22);
    bytes.set(addressBytes(to.address), 38);
    view.setUint16(UDP_AT, FLOW_PORT);
    view.setUint16(UDP_AT + 2, FLOW_PORT);
    view.setUint16(UDP_AT + 4, 8 + PAYLOAD_BYTES);
    let sum = 17 + 8 + PAYLOAD_BYTES;
    for (let at = 22; at < FRAME_BYTES; at += 2) sum += view.getUint16(at);
    this.sum = sum;
  }

  /** Sends to another MAC address from now on; no checksum covers it. */
  address(mac: string): void {
    this.bytes.set(macBytes(mac), 0);
  }

  /** Writes the frame at `at`. `time` in nanoseconds, below 2^53. */
  write(frame: Uint8Array, view: DataView, at: number, number: number, time: number): void {
    frame.set(this.bytes, at);
    const high = Math.floor(time / WORD);
    const low = time % WORD;
    view.setUint32(at + PAYLOAD_AT, number);
    view.setUint32(at + PAYLOAD_AT + 4, high);
    view.setUint32(at + PAYLOAD_AT + 8, low);
    let sum = this.sum + words(number) + words(high) + words(low);
    sum = (sum & 0xffff) + (sum >>> 16);
    sum = (sum & 0xffff) + (sum >>> 16);
    const checksum = ~sum & 0xffff;
    view.setUint16(at + UDP_AT + 6, checksum === 0 ? 0xffff : checksum);
  }
}

/** The time of sending out of a payload at `at`, in nanoseconds. */
export function sentAt(view: DataView, at: number): number {
  return view.getUint32(at + 4) * WORD + view.getUint32(at + 8);
}

/** Nanoseconds of CLOCK_MONOTONIC, the same in every process of the machine; exact for 104 days after boot. */
export function monotonic(): number {
  return Number(process.hrtime.bigint());
}

function words(value: number): number {
  return (value >>> 16) + (value & 0xffff);
}

function macBytes(mac: string): number[] {
  return mac.split(":").map((byte) => Number.parseInt(byte, 16));
}
