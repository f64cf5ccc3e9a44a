// A firewall: frames that a rule forbids end here, all others go on to the kernel as if nothing had happened.
//
//   bifurcate split eth0 --flow 'ip and not tcp port 22' --do run=examples/firewall.ts
//
// What the flow leaves out never comes here: keep your own SSH session out of it, as above. Edit `rules` below.

import type { Batch, Context } from "bifurcate";

interface Rule {
  readonly words: string;
  /** Source network, as address and prefix length; any source when left out. */
  readonly from?: readonly [address: string, prefix: number];
  /** IP protocol: 1 ICMP, 6 TCP, 17 UDP; any when left out. */
  readonly protocol?: number;
  /** Destination port of TCP or UDP; any when left out. */
  readonly port?: number;
}

/** What is forbidden. The first rule that fits counts the frame. */
const rules: readonly Rule[] = [
  { words: "telnet", protocol: 6, port: 23 },
  { words: "SNMP", protocol: 17, port: 161 },
  { words: "anything from 198.51.100.0/24", from: ["198.51.100.0", 24] },
];

const addressOf = (text: string): number =>
  text.split(".").reduce((word, byte) => (word << 8) | Number(byte), 0);
const maskOf = (prefix: number): number => (prefix === 0 ? 0 : -1 << (32 - prefix));

/** The rules in numbers: a field that does not matter is -1, or has the mask 0. */
const compiled = rules.map((rule) => ({
  address: rule.from === undefined ? 0 : addressOf(rule.from[0]) & maskOf(rule.from[1]),
  mask: rule.from === undefined ? 0 : maskOf(rule.from[1]),
  protocol: rule.protocol ?? -1,
  port: rule.port ?? -1,
}));

const stopped = rules.map(() => 0);

/** The rule that forbids the frame, or -1. What is no IPv4, or cut short, is left to the kernel. */
function forbiddenBy(view: DataView, at: number, size: number): number {
  if (size < 34 || view.getUint16(at + 12) !== 0x0800) return -1;
  const ip = at + 14;
  const header = (view.getUint8(ip) & 15) * 4;
  const protocol = view.getUint8(ip + 9);
  const source = view.getInt32(ip + 12);
  // Only the first fragment has ports; the others are of no use without it.
  const first = (view.getUint16(ip + 6) & 0x1fff) === 0;
  const hasPorts = first && (protocol === 6 || protocol === 17) && size >= 14 + header + 4;
  const port = hasPorts ? view.getUint16(ip + header + 2) : -1;
  for (let n = 0; n < compiled.length; n += 1) {
    const rule = compiled[n]!;
    if ((source & rule.mask) !== rule.address) continue;
    if (rule.protocol !== -1 && rule.protocol !== protocol) continue;
    if (rule.port !== -1 && rule.port !== port) continue;
    return n;
  }
  return -1;
}

/** Drop is the default; everything that no rule forbids is passed. */
export function handle(batch: Batch): void {
  const { view } = batch;
  while (batch.next()) {
    const rule = forbiddenBy(view, batch.at, batch.size);
    if (rule < 0) batch.pass();
    else stopped[rule]! += 1;
  }
}

/** Says at the end what each rule has stopped on this queue. */
export function stop(context: Context): void {
  rules.forEach((rule, n) => {
    if (stopped[n]! > 0) console.error(`queue ${context.queue}: ${rule.words}: ${stopped[n]} frames stopped`);
  });
}
