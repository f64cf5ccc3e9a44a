// A lease port: a veth pair of which the client gets the far end's sockets and the card the near end.
//
//   card's XDP ── DEVMAP ──> near ═════ far ── XDP ── XSKMAP ──> the client's socket
//   card <── tc redirect ── XDP check ── near ═════ far <── the client's tx ring
//
// A frame that finds no socket at the far end (the client is gone, the broker has not seen it yet) arrives on the card
// after all, so that the kernel has the flow even while no broker runs.
import { chmodSync, existsSync, mkdirSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { errnoOf } from "../errors.js";
import type { LeaseRequest, Transmit } from "../protocol/messages.js";
import {
  compile,
  compileAny,
  ownTransmit,
  redirectProgram,
  returnProgram,
  SENT,
  transmitProgram,
  xdpProgram,
  type OwnSender,
} from "../steering/rules/index.js";
import { word } from "./card.js";
import { jumboFrames, type FrameSource } from "./pool.js";
import type {
  BrokerKernel,
  BrokerNetns,
  ClientNetns,
  Descriptor,
  LeaseSockets,
  PinnableMap,
} from "./machine.js";

/** The card as a port has to know it. */
export interface PortCard extends OwnSender, FrameSource {
  readonly ifindex: number;
}

/** Names of a lease's interfaces. */
export interface PortNames {
  readonly near: string;
  readonly far: string;
  readonly way: string | null;
}

/** What was made. */
export interface MadePort {
  readonly near: number;
  readonly far: number;
  readonly sockets: LeaseSockets;
  /** Queues of the return port; none without `pass`. */
  readonly ways: readonly Descriptor[];
}

/** MTU of the return port: 65,535 less an Ethernet header, what the tun driver takes at most. */
const WAY_MTU = 65_521;

/** Names that no other lease has: eight hex digits of the lease's own. Without a port only the way back has one. */
export function portNames(id: string, port: boolean, pass: boolean): PortNames {
  const hex = id.slice(-8);
  const way = pass ? `bfw${hex}` : null;
  return port ? { near: `bfn${hex}`, far: `bff${hex}`, way } : { near: "", far: "", way };
}

/** The folder of a lease's names in the BPF file system. */
export function pinFolder(bpffs: string, id: string): string {
  return join(bpffs, id);
}

/** Makes a port, everything but the card's own program. What it made before it failed, `removePort` takes away. */
export function makePort(
  kernel: BrokerKernel,
  netns: BrokerNetns,
  card: PortCard,
  names: PortNames,
  request: LeaseRequest,
  rate: number | null,
  folder: string,
): MadePort {
  const { queues, transmit } = request;
  const { near, far, mac } = makePair(netns, card, names, queues, folder);
  const xsks = socketMap(kernel, queues);
  try {
    attachFar(kernel, netns, far, xsks, folder);
    attachBack(kernel, netns, card, far, folder);
    attachNear(kernel, netns, card, near, request, rate, folder);
    netns.setLink(near, { up: true });
    netns.setLink(far, { up: true });
    const sockets = netns.createLeaseSockets(socketOptions(request, card, names.far), transmit !== "none");
    for (const [queue, { number }] of sockets.sockets.entries()) xsks.update(word(queue), word(number));
    try {
      const ways = makeWays(kernel, netns, card, names, request, mac, folder);
      return { near, far, sockets, ways };
    } catch (thrown) {
      for (const each of [sockets.memory, ...sockets.sockets]) each.close();
      throw thrown;
    }
  } finally {
    xsks.close();
  }
}

/** A map for the sockets of a port's queues. */
function socketMap(kernel: BrokerKernel, queues: number): PinnableMap {
  const name = "bifurcated_xsk";
  return kernel.createMap({ type: "xskmap", name, keySize: 4, valueSize: 4, maxEntries: queues });
}

/** The two ends, down, as wide and with the address as the card has them. */
function makePair(
  netns: BrokerNetns,
  card: PortCard,
  names: PortNames,
  queues: number,
  folder: string,
): { readonly near: number; readonly far: number; readonly mac: number[] } {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const [near, far] = netns.createVeth(names.near, names.far, queues) as [number, number];
  // A frame that comes by the port has the card's address as destination, and what is sent has it as source.
  const mac = card.mac.split(":").map((each) => Number.parseInt(each, 16));
  netns.setLink(near, { mtu: card.mtu });
  netns.setLink(far, { mtu: card.mtu, mac });
  return { near, far, mac };
}

/** The name of a foreign port's map in the lease's folder. */
const SOCKETS_PIN = "sockets";

/**
 * A port whose far end lies in the client's namespace, and whose client makes its socket itself: gives the near end, the
 * map that takes that socket, and what of it is passed. What finds no socket in the map, the card's program has not sent here; so the far end
 * needs no way back. What was made before it failed, `removePort` takes away.
 */
export function makeForeignPort(
  kernel: BrokerKernel,
  netns: BrokerNetns,
  card: PortCard,
  names: PortNames,
  request: LeaseRequest,
  rate: number | null,
  folder: string,
  client: ClientNetns,
): { readonly near: number; readonly map: PinnableMap; readonly passed: readonly Descriptor[] } {
  const { near, far } = makePair(netns, card, names, 1, folder);
  const map = socketMap(kernel, 1);
  try {
    // For the next broker, whose program on the card looks there too; and for a client that opens it by its name, which is
    // nobody's to find: the folder is the broker's alone.
    const pin = join(folder, SOCKETS_PIN);
    map.pin(pin);
    chmodSync(pin, 0o666);
    attachFar(kernel, netns, far, map, folder);
    attachNear(kernel, netns, card, near, request, rate, folder);
    netns.setLink(near, { up: true });
    // Last: its new owner has every right over it, and no descriptor of a program.
    netns.moveLink(far, client);
    return { near, map, passed: [map.descriptor(), kernel.openName(pin)] };
  } catch (thrown) {
    map.close();
    throw thrown;
  }
}

/** The map of a foreign lease that another broker has made; null where the lease is none, or has none yet. */
export function foreignSockets(
  kernel: BrokerKernel,
  { request }: { readonly request: Pick<LeaseRequest, "mechanism"> },
  folder: string,
): PinnableMap | null {
  const path = join(folder, SOCKETS_PIN);
  return request.mechanism === "foreign" && existsSync(path) ? kernel.pinnedMap(path) : null;
}

/** What to ask of the kernel for the sockets: on queue 0 and upwards, in copy mode, as a port has them. */
export function socketOptions(
  request: LeaseRequest,
  card: PortCard,
  ifname: string,
): Parameters<BrokerNetns["createLeaseSockets"]>[0] {
  const { queues, frames, frameSize, ringSize, busyPoll, pages } = request;
  return {
    ifname,
    queues: Array.from({ length: queues }, (_, queue) => queue),
    frames,
    frameSize,
    jumboFrames: jumboFrames(request, card),
    // A port is veth, which has none.
    zeroCopy: "off",
    mode: "driver",
    busyPoll,
    pages,
    ringSize,
    // The port's program asks no driver: veth knows no more than the frame says.
    metadata: false,
  };
}

function attachFar(
  kernel: BrokerKernel,
  netns: BrokerNetns,
  far: number,
  xsks: PinnableMap,
  folder: string,
): void {
  const program = kernel.loadProgram(xdpProgram(compile("all"), { map: xsks }));
  try {
    const xdp = netns.attachXdp(program, far, "driver");
    xdp.pin(join(folder, "far-xdp"));
    xdp.close();
  } finally {
    program.close();
  }
}

/** What finds no socket at the far end goes back to the card. */
function attachBack(
  kernel: BrokerKernel,
  netns: BrokerNetns,
  card: PortCard,
  far: number,
  folder: string,
): void {
  // In generic mode the card's program would see the frame again, and send it round in circles.
  const back = kernel.loadProgram(redirectProgram(card.mode === "generic" ? null : card.ifindex, true));
  try {
    const tc = netns.attachTcIngress(back, far);
    tc.pin(join(folder, "far-tc"));
    tc.close();
  } finally {
    back.close();
  }
}

function bucket(kernel: BrokerKernel): ReturnType<BrokerKernel["createMap"]> {
  const name = "bifurcated_rate";
  return kernel.createMap({ type: "array", name, keySize: 4, valueSize: 8, maxEntries: 1 });
}

/** What a lease may send, as the filter that checks it. @throws E_LEASE_UNSUPPORTED */
function allowed(
  transmit: Transmit,
  flows: readonly string[],
  card: PortCard,
): Parameters<typeof transmitProgram>[0] {
  if (transmit === "none") return "nothing";
  return transmit === "raw" ? null : ownTransmit(flows, card);
}

function attachNear(
  kernel: BrokerKernel,
  netns: BrokerNetns,
  card: PortCard,
  near: number,
  request: LeaseRequest,
  rate: number | null,
  folder: string,
): void {
  const counters = kernel.createMap({
    type: "percpu-array",
    name: "bifurcated_tx",
    keySize: 4,
    valueSize: 8,
    maxEntries: 3,
  });
  const limit = rate === null ? null : { bucket: bucket(kernel), perSecond: rate };
  try {
    counters.pin(join(folder, "counters"));
    const filter = allowed(request.transmit, request.flows, card);
    const check = kernel.loadProgram(transmitProgram(filter, counters, limit));
    const out = kernel.loadProgram(redirectProgram(card.ifindex, false));
    try {
      const xdp = netns.attachXdp(check, near, "driver");
      xdp.pin(join(folder, "near-xdp"));
      xdp.close();
      const tc = netns.attachTcIngress(out, near);
      tc.pin(join(folder, "near-tc"));
      tc.close();
    } finally {
      check.close();
      out.close();
    }
  } finally {
    counters.close();
    limit?.bucket.close();
  }
}

/**
 * The return port, where the lease has one: what the client writes there, and belongs to its flow, arrives on the card.
 * Gives its queues.
 */
export function makeWays(
  kernel: BrokerKernel,
  netns: BrokerNetns,
  card: Pick<PortCard, "ifindex">,
  { way: name }: PortNames,
  request: LeaseRequest,
  mac: number[],
  folder: string,
): readonly Descriptor[] {
  if (name === null) return [];
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const program = kernel.loadProgram(returnProgram(compileAny(request.flows), card.ifindex));
  try {
    const tap = netns.createTap(name, request.queues);
    // Before it goes up: nothing may reach the TAP's own stack.
    const tc = netns.attachTcIngress(program, tap.ifindex);
    tc.pin(join(folder, "way-tc"));
    tc.close();
    netns.setLink(tap.ifindex, { up: true, mtu: WAY_MTU, mac });
    return tap.queues;
  } finally {
    program.close();
  }
}

/** What the check on a port has let out and dropped; null where there is no such port. */
export function portCounters(
  kernel: BrokerKernel,
  folder: string,
): { readonly allowed: number; readonly denied: number; readonly limited: number } | null {
  try {
    const map = kernel.pinnedMap(join(folder, "counters"));
    try {
      // A value a processor, 8 bytes each.
      const total = (key: number): number => {
        const bytes = map.lookup(word(key)) ?? new Uint8Array(0);
        const values = new BigUint64Array(bytes.slice().buffer);
        return Number(values.reduce((sum, each) => sum + each, 0n));
      };
      return { allowed: total(SENT.allowed), denied: total(SENT.denied), limited: total(SENT.limited) };
    } finally {
      map.close();
    }
  } catch {
    return null;
  }
}

/** Takes away whatever is there of a port: interfaces by name, then the names of what was on them. */
export function removePort(netns: BrokerNetns, names: PortNames, folder: string): void {
  for (const name of [names.near, names.far, names.way]) {
    if (name !== null) deleteLink(netns, name);
  }
  removePins(folder);
}

function deleteLink(netns: BrokerNetns, name: string): void {
  const link = netns.links().find((each) => each.name === name);
  if (link === undefined) return;
  try {
    netns.deleteLink(link.index);
  } catch (thrown) {
    // Of a pair the other end has taken it along.
    if (errnoOf(thrown) !== "ENODEV") throw thrown;
  }
}

/** Removes a lease's names in the BPF file system. */
export function removePins(folder: string): void {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return;
  }
  for (const name of names) rmSync(join(folder, name), { force: true });
  rmdirSync(folder);
}
