// For tests: brings a wire of a guest up, its far end in a namespace, so that the kernel really sends on it.

import { BifurcateError } from "@bifurcate/control/errors";
import type { Guest, UpPort } from "./guest.js";

/** The largest receive buffer that a socket of the guest may ask for, in bytes. */
const RECEIVE_BUFFER = 8 << 20;

/** Seconds that a link may need: far more than any does, even where emulation is starved. */
const CARRIER_LIMIT = 60;

/** One end of a wire that is up. */
export interface WireEnd {
  readonly name: string;
  readonly mac: string;
  readonly v4: string;
  readonly v6: string;
}

/** A wire: the NIC under test in the guest's first namespace, the other end in a namespace of its own. */
export interface Wire {
  readonly nic: WireEnd;
  readonly far: WireEnd & { readonly netns: string };
}

/** The other port of a NIC's wire. */
export function farEnd(guest: Guest, name: string): UpPort {
  const nic = guest.ports.find((port) => port.name === name);
  const far = guest.ports.find((port) => port.wire === nic?.wire && port.wire !== null && port.name !== name);
  if (far !== undefined) return far;
  throw new BifurcateError("E_GUEST", {
    what: `find the far end of ${name}`,
    why: "no port of the guest is wired to it",
  });
}

/**
 * Gives both ends of a NIC's wire addresses of the documentation's prefixes, writes each other's MAC address down, and
 * waits for carrier. The far end goes into the namespace `wireN`; takeDown() brings it back.
 * @param mtu MTU of both ends, in bytes.
 */
export async function bringUp(guest: Guest, name: string, mtu = 1500): Promise<Wire> {
  const port = guest.ports.find((each) => each.name === name)!;
  const other = farEnd(guest, name);
  const number = port.wire!;
  const end = (each: UpPort, side: 1 | 2): WireEnd => ({
    name: each.name,
    mac: each.mac,
    v4: `192.0.2.${number * 16 + side}`,
    v6: `2001:db8:${number + 1}::${side}`,
  });
  const [nic, far] = [end(port, 1), { ...end(other, 2), netns: `wire${number}` }];
  const commands = (mine: WireEnd, theirs: WireEnd): string[] => [
    // No link-local address: nothing is on the wire but what a test sends, and within two seconds of `up` the reports of
    // the groups that the addresses are in (MLD, RFC 3810).
    `link set dev ${mine.name} addrgenmode none mtu ${mtu}`,
    `addr add ${mine.v4}/28 dev ${mine.name}`,
    `addr add ${mine.v6}/64 dev ${mine.name} nodad`,
    `link set dev ${mine.name} up`,
    `neigh replace ${theirs.v4} lladdr ${theirs.mac} dev ${mine.name} nud permanent`,
    `neigh replace ${theirs.v6} lladdr ${theirs.mac} dev ${mine.name} nud permanent`,
  ];
  // Room for what arrives while a process waits for its processor, which takes long in software emulation.
  await guest.run(["sysctl", "-qw", `net.core.rmem_max=${RECEIVE_BUFFER}`]);
  await ip(guest, [`netns add ${far.netns}`, `link set dev ${far.name} netns ${far.netns}`]);
  await ip(guest, commands(nic, far));
  await ip(guest, commands(far, nic), far.netns);
  await carrier(guest, nic.name);
  await carrier(guest, far.name, far.netns);
  return { nic, far };
}

/** Takes the addresses away and brings the far end back; both ends are down then, as they were. */
export async function takeDown(guest: Guest, wire: Wire): Promise<void> {
  const { nic, far } = wire;
  await ip(guest, [`link set dev ${far.name} down`, `link set dev ${far.name} netns 1`], far.netns);
  await ip(guest, [`netns del ${far.netns}`, `link set dev ${nic.name} down`, `addr flush dev ${nic.name}`]);
}

/**
 * Waits until an interface carries, and the kernel has taken note of it (a little later): igb needs some time after `up`,
 * and again after an XDP program came or went.
 */
export async function carrier(guest: Guest, name: string, netns?: string): Promise<void> {
  const folder = `/sys/class/net/${name}`;
  const carries = `grep -q 1 ${folder}/carrier 2>/dev/null && ! grep -q down ${folder}/operstate`;
  const wait = `for i in $(seq ${10 * CARRIER_LIMIT}); do ${carries} && exit 0; sleep 0.1; done; exit 1`;
  const inside = netns === undefined ? [] : ["ip", "netns", "exec", netns];
  const { status } = await guest.run([...inside, "sh", "-c", wait]);
  if (status === 0) return;
  throw new BifurcateError("E_GUEST", {
    what: `bring up ${name}`,
    why: `no carrier after ${CARRIER_LIMIT} seconds`,
  });
}

/** Runs commands of ip(8) in order, in one go. */
async function ip(guest: Guest, commands: readonly string[], netns?: string): Promise<void> {
  const inside = netns === undefined ? [] : ["-n", netns];
  const ended = await guest.run(["ip", ...inside, "-batch", "-"], { input: commands.join("\n") + "\n" });
  if (ended.status === 0) return;
  throw new BifurcateError("E_GUEST", {
    what: `run ip -batch for ${commands.join("; ")}`,
    why: ended.stderr.trim(),
  });
}
