// A card with leases: one XDP program that knows all their flows, and the map of their ports. Both outlive the broker.
import { existsSync, mkdirSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { BifurcateError, errnoOf, wrapError } from "../errors.js";
import { cardProgram, compileAny, type CardEntry } from "../steering/rules/index.js";
import type { BrokerKernel, BrokerNetns, Link, PinnableMap } from "./machine.js";

/** Leases that one card takes: each costs every frame of the card one more look. */
export const LEASES_MOST = 256;

/** A 32-bit number in the machine's order, as bpf(2) takes keys and values. */
export function word(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

/** Names in the BPF file system. */
function pins(folder: string): { readonly link: string; readonly ports: string } {
  return { link: join(folder, "link"), ports: join(folder, "ports") };
}

/** One card. Its program is attached while there is a lease. */
export class Card {
  private readonly entries = new Map<number, CardEntry>();
  private link: Link | null = null;
  private ports: PinnableMap | null = null;
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

  /** Takes over the program and the map that another broker has left; false where there are none. */
  adopt(): boolean {
    const { link, ports } = pins(this.folder);
    if (!existsSync(link) || !existsSync(ports)) {
      this.unpin();
      return false;
    }
    this.link = this.kernel.pinnedLink(link);
    this.ports = this.kernel.pinnedMap(ports);
    return this.link.attached();
  }

  /** How many leases there are. */
  get size(): number {
    return this.entries.size;
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

  /** Notes a lease that the program of the broker before this one knows already. */
  note(slot: number, flows: readonly string[]): void {
    this.entries.set(slot, { filter: compileAny(flows), slot });
  }

  /** The lease's flow goes to its port from now on: the map first, then the program. */
  add(slot: number, flows: readonly string[], near: number): void {
    this.note(slot, flows);
    try {
      this.open();
      this.ports!.update(word(slot), word(near));
      this.install();
    } catch (thrown) {
      this.remove(slot);
      throw thrown;
    }
  }

  /** The lease's flow goes to the kernel from now on, at once; then the program forgets it. */
  remove(slot: number): void {
    this.steer(slot);
    if (!this.entries.delete(slot)) return;
    if (this.entries.size === 0) this.close();
    else this.install();
  }

  /** The kernel gets the flow at once: an empty slot passes. */
  steer(slot: number): void {
    try {
      this.ports?.delete(word(slot));
    } catch (thrown) {
      // A port that was deleted has left the map by itself.
      if (errnoOf(thrown) !== "ENOENT") throw thrown;
    }
  }

  private open(): void {
    if (this.ports !== null) return;
    mkdirSync(this.folder, { recursive: true, mode: 0o700 });
    this.ports = this.kernel.createMap({
      type: "devmap",
      name: "bifurcated",
      keySize: 4,
      valueSize: 4,
      maxEntries: LEASES_MOST,
    });
    this.ports.pin(pins(this.folder).ports);
  }

  /** Puts a program that knows the leases of this moment in the place of the one before. */
  private install(): void {
    const source = cardProgram([...this.entries.values()], this.ports!);
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
    this.link?.close();
    this.ports?.close();
    this.link = null;
    this.ports = null;
  }

  /** Gives the descriptors back; program and map live on by their names. */
  leave(): void {
    this.link?.close();
    this.ports?.close();
    this.link = null;
    this.ports = null;
  }

  private unpin(): void {
    const { link, ports } = pins(this.folder);
    for (const path of [link, ports]) rmSync(path, { force: true });
    try {
      rmdirSync(this.folder);
    } catch (thrown) {
      if (errnoOf(thrown) !== "ENOENT") throw thrown;
    }
  }
}
