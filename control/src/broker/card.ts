// A card with leases: one XDP program that knows all their flows, and the maps of their ports and sockets. All of them
// outlive the broker.
import { existsSync, mkdirSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { BifurcateError, errnoOf, wrapError } from "../errors.js";
import { cardProgram, compileAny, type CardEntry } from "../steering/rules/index.js";
import type { BrokerKernel, BrokerNetns, Link, PinnableMap } from "./machine.js";

/** Leases that one card takes: each costs every frame of the card one more look. */
export const LEASES_MOST = 256;

/** Queues of a card that can be leased: drivers stop at a few hundred. */
const QUEUES_MOST = 1024;

/** A 32-bit number in the machine's order, as bpf(2) takes keys and values. */
export function word(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

/** Names in the BPF file system. */
function pins(folder: string): { readonly link: string; readonly ports: string; readonly sockets: string } {
  return { link: join(folder, "link"), ports: join(folder, "ports"), sockets: join(folder, "sockets") };
}

/** A socket that gets what its queue of the card brings. */
export interface QueueSocket {
  readonly queue: number;
  /** The socket's descriptor. */
  readonly number: number;
}

/** One card. Its program is attached while there is a lease. */
export class Card {
  private readonly entries = new Map<number, CardEntry>();
  /** Of leases whose client makes its socket itself: the map that it comes into. */
  private readonly presence = new Map<number, PinnableMap>();
  private link: Link | null = null;
  private ports: PinnableMap | null = null;
  private sockets: PinnableMap | null = null;
  private readonly folder: string;

  constructor(
    private readonly kernel: BrokerKernel,
    private readonly netns: BrokerNetns,
    readonly ifindex: number,
    readonly name: string,
    readonly mode: "driver" | "generic",
    bpffs: string,
  ) {
    this.folder = join(bpffs, `card-${netns.inode}-${ifindex}`);
  }

  /** Takes over the program and the maps that another broker has left; false where there are none. */
  adopt(): boolean {
    const { link, ports, sockets } = pins(this.folder);
    if (!existsSync(link) || !existsSync(ports)) {
      this.unpin();
      return false;
    }
    this.link = this.kernel.pinnedLink(link);
    this.ports = this.kernel.pinnedMap(ports);
    // A broker of before there were own queues has left none; the next program gets one.
    if (existsSync(sockets)) this.sockets = this.kernel.pinnedMap(sockets);
    return this.link.attached();
  }

  /** How many leases there are. */
  get size(): number {
    return this.entries.size;
  }

  /** Whether a lease has that slot. */
  has(slot: number): boolean {
    return this.entries.has(slot);
  }

  /** Whether the program is still attached. */
  get attached(): boolean {
    return this.link?.attached() ?? false;
  }

  /** A slot that no lease has. @throws E_BROKER_FULL */
  freeSlot(): number {
    for (let slot = 0; slot < LEASES_MOST; slot++) if (!this.entries.has(slot)) return slot;
    throw new BifurcateError("E_BROKER_FULL", {
      what: `lease a flow of ${this.name}`,
      why: `it has ${LEASES_MOST} leases`,
    });
  }

  /**
   * Notes a lease that the program of the broker before this one knows already.
   * @param present The map of a foreign lease, which is closed with the entry.
   */
  note(
    slot: number,
    flows: readonly string[],
    queues: readonly number[] | null,
    present: PinnableMap | null = null,
  ): void {
    this.entries.set(slot, { filter: compileAny(flows), slot, queues, present });
    if (present !== null) this.presence.set(slot, present);
  }

  /**
   * The lease's flow goes to its port from now on: the map first, then the program.
   * @param present Only while this map has a socket; it is closed with the lease.
   */
  add(slot: number, flows: readonly string[], near: number, present: PinnableMap | null = null): void {
    this.enter(slot, flows, null, present, ({ ports }) => ports.update(word(slot), word(near)));
  }

  /** The lease's flow goes to these sockets from now on, where it comes on their queues. */
  addQueues(slot: number, flows: readonly string[], sockets: readonly QueueSocket[]): void {
    const queues = sockets.map(({ queue }) => queue);
    this.enter(slot, flows, queues, null, (maps) => {
      for (const { queue, number } of sockets) maps.sockets.update(word(queue), word(number));
    });
  }

  private enter(
    slot: number,
    flows: readonly string[],
    queues: readonly number[] | null,
    present: PinnableMap | null,
    fill: (maps: { readonly ports: PinnableMap; readonly sockets: PinnableMap }) => void,
  ): void {
    this.note(slot, flows, queues, present);
    try {
      fill(this.open());
      this.install();
    } catch (thrown) {
      this.remove(slot);
      throw thrown;
    }
  }

  /** The lease's flow goes to the kernel from now on, at once; then the program forgets it. */
  remove(slot: number): void {
    const entry = this.entries.get(slot);
    if (entry === undefined) return;
    if (entry.queues === null) forget(this.ports, slot);
    else for (const queue of entry.queues) forget(this.sockets, queue);
    this.entries.delete(slot);
    this.presence.get(slot)?.close();
    this.presence.delete(slot);
    if (this.entries.size === 0) this.close();
    else this.install();
  }

  private open(): { readonly ports: PinnableMap; readonly sockets: PinnableMap } {
    mkdirSync(this.folder, { recursive: true, mode: 0o700 });
    const make = (type: "devmap" | "xskmap", maxEntries: number, path: string): PinnableMap => {
      const map = this.kernel.createMap({ type, name: "bifurcated", keySize: 4, valueSize: 4, maxEntries });
      map.pin(path);
      return map;
    };
    this.ports ??= make("devmap", LEASES_MOST, pins(this.folder).ports);
    this.sockets ??= make("xskmap", QUEUES_MOST, pins(this.folder).sockets);
    return { ports: this.ports, sockets: this.sockets };
  }

  /** Puts a program that knows the leases of this moment in the place of the one before. */
  private install(): void {
    const source = cardProgram([...this.entries.values()], this.open());
    const program = this.kernel.loadProgram(source);
    try {
      if (this.link !== null) {
        this.link.update(program);
        return;
      }
      try {
        this.link = this.netns.attachXdp(program, this.ifindex, this.mode);
      } catch (thrown) {
        const what = `attach an XDP program to ${this.name}`;
        const errno = errnoOf(thrown);
        throw wrapError(thrown, what, errno === "EBUSY" || errno === "EEXIST" ? "E_FOREIGN_XDP" : "E_SYSTEM");
      }
      this.link.pin(pins(this.folder).link);
    } finally {
      program.close();
    }
  }

  /** No lease is left: the program goes, and the names. */
  private close(): void {
    this.unpin();
    this.leave();
  }

  /** Gives the descriptors back; program and maps live on by their names. */
  leave(): void {
    this.link?.close();
    this.ports?.close();
    this.sockets?.close();
    for (const each of this.presence.values()) each.close();
    this.presence.clear();
    this.link = null;
    this.ports = null;
    this.sockets = null;
  }

  private unpin(): void {
    for (const path of Object.values(pins(this.folder))) rmSync(path, { force: true });
    try {
      rmdirSync(this.folder);
    } catch (thrown) {
      if (errnoOf(thrown) !== "ENOENT") throw thrown;
    }
  }
}

/** An empty place passes. */
function forget(map: PinnableMap | null, key: number): void {
  try {
    map?.delete(word(key));
  } catch (thrown) {
    // A port that was deleted, and a socket that was closed, have left their map by themselves.
    if (errnoOf(thrown) !== "ENOENT") throw thrown;
  }
}
