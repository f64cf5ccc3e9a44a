// A forwarder on one card: spreads a flow over several servers in the same network and leaves the addresses alone.
//
//   BACKENDS=02:00:00:00:00:0a,02:00:00:00:00:0b \
//   bifurcate split eth0 --flow 'udp dst port 443' --do run=examples/forwarder.ts
//
// Only the MAC addresses change ("direct server return"): each server has the service's address on its loopback
// and answers the client itself. All frames of one client and port go to the same server. To forward everything
// to another card, unchanged and without JavaScript: --do forward=DEV.

import type { Batch } from "bifurcate";

const backends = (process.env["BACKENDS"] ?? "").split(",").filter(Boolean).map(parseMac);

/** A MAC address as a 16-bit and a 32-bit word. */
function parseMac(text: string): readonly [number, number] {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) throw new Error(`BACKENDS: '${text}' is no MAC address`);
  const hex = text.replaceAll(":", "");
  return [parseInt(hex.slice(0, 4), 16), parseInt(hex.slice(4), 16)];
}

/** Says what is missing before the first frame comes. */
export function start(): void {
  if (backends.length === 0)
    throw new Error("set BACKENDS to the servers' MAC addresses, separated by commas");
}

/** Mixes source address, source port and protocol, so that a client keeps its server. */
function hashOf(view: DataView, ip: number): number {
  const ports = ip + (view.getUint8(ip) & 15) * 4;
  let hash = Math.imul(view.getUint32(ip + 12) ^ view.getUint8(ip + 9), 0x9e3779b1);
  hash = Math.imul(hash ^ view.getUint16(ports) ^ (hash >>> 15), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

/**
 * Sends the frame to the next hop: decrements the time to live and sets the MAC addresses.
 * @returns false when it is no whole IPv4 datagram with ports, or has lived long enough.
 */
export function forward(
  view: DataView,
  at: number,
  size: number,
  to: readonly (readonly [number, number])[],
): boolean {
  if (size < 38 || view.getUint16(at + 12) !== 0x0800) return false;
  const ip = at + 14;
  const header = (view.getUint8(ip) & 15) * 4;
  const fragment = (view.getUint16(ip + 6) & 0x3fff) !== 0;
  if (header < 20 || size < 14 + header + 4 || fragment || view.getUint8(ip + 8) <= 1) return false;
  const [high, low] = to[hashOf(view, ip) % to.length]!;
  // The sum is updated, not made anew: an error on the way stays visible (RFC 1624, equation 3).
  const old = view.getUint16(ip + 8);
  view.setUint8(ip + 8, (old >> 8) - 1);
  let sum = (~view.getUint16(ip + 10) & 0xffff) + (~old & 0xffff) + view.getUint16(ip + 8);
  sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(ip + 10, ~(sum + (sum >>> 16)) & 0xffff);
  view.setUint16(at + 6, view.getUint16(at));
  view.setUint32(at + 8, view.getUint32(at + 2));
  view.setUint16(at, high);
  view.setUint32(at + 2, low);
  return true;
}

/** What cannot be forwarded goes to the kernel, which may have an answer (an ICMP error, a reassembly). */
export function handle(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    if (forward(view, batch.at, batch.size, backends)) batch.send();
    else batch.pass();
  }
}
