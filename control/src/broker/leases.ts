// The leases of one namespace: granted by policy, watched, ended, adopted. Knows no socket and no message.
import { randomBytes } from "node:crypto";
import { BifurcateError, messageOf, wrapError } from "../errors.js";
import { findLink, readFacts, type Facts } from "../facts/facts.js";
import { bootId, identify, isAlive, type ProcessIdentity } from "../facts/processes.js";
import {
  readRecords,
  removeRecord,
  removeUnfinished,
  writeRecord,
  type LeaseRecord,
} from "../lease/record.js";
import { next, type LeaseEvent } from "../lease/state.js";
import type { GrantedLease, LeaseRequest, ListedLease } from "../protocol/messages.js";
import { compileFlow } from "../steering/compile-flow.js";
import { makePlan } from "../steering/make-plan.js";
import type { Plan } from "../steering/plan.js";
import { splitsOn } from "../transaction/registry.js";
import type { Audit } from "./audit.js";
import { Card } from "./card.js";
import type { BrokerKernel, BrokerNetns, Descriptor, Locals, ProcessHandle } from "./machine.js";
import { decide, poolBytes, type Asker, type Holding, type Policy, type Rule } from "./policy.js";
import { Stopwatch } from "./stopwatch.js";
import {
  makePort,
  pinFolder,
  portCounters,
  portNames,
  removePins,
  removePort,
  type PortCard,
} from "./port.js";

/** Who asks for a lease, as the kernel says it. */
export interface Client extends Asker {
  readonly pid: number;
}

/** Where things are kept. */
export interface Places {
  /** Records of leases. */
  readonly state: string;
  /** A folder of a BPF file system. */
  readonly bpffs: string;
  /** Journals of splits made in process. */
  readonly splits: string;
}

/** What a grant gives: the words and the descriptors, in the order that PROTOCOL.md says. */
export interface Granting {
  readonly lease: GrantedLease;
  readonly descriptors: readonly Descriptor[];
  /** To be called when the message has been sent, or could not be: our copies are closed. */
  readonly sent: (ok: boolean) => void;
}

/** A lease with what the broker watches of it. */
interface Live {
  record: LeaseRecord;
  process: ProcessHandle | null;
  timer: NodeJS.Timeout | null;
}

/** How long between two looks whether a drained port is free, ms. */
const DRAIN_MS = 500;

/** All leases of a namespace. */
export class Leases {
  private readonly cards = new Map<number, Card>();
  private readonly leases = new Map<string, Live>();
  /** Told when a lease ended otherwise than by its client's wish. */
  onRevoked: (id: string, why: string) => void = () => undefined;
  /** Counted since the start: granted, denied, and ended by each cause. */
  readonly counts = new Map<string, number>();

  constructor(
    private readonly kernel: BrokerKernel,
    private readonly netns: BrokerNetns,
    private readonly machine: Locals,
    private readonly places: Places,
    public policy: Policy,
    private readonly audit: Audit,
  ) {}

  /** Everything that may be shown to that user. */
  list(asker: Asker): ListedLease[] {
    return [...this.leases.values()]
      .map(({ record }) => record)
      .filter((record) => record.client.uid === asker.uid || this.isAdmin(asker))
      .map(listed);
  }

  /** All of them, for metrics. */
  all(): ListedLease[] {
    return [...this.leases.values()].map(({ record }) => listed(record));
  }

  /** What the checks on live leases' ports have let out and dropped so far. */
  transmitted(): {
    readonly id: string;
    readonly allowed: number;
    readonly denied: number;
    readonly limited: number;
  }[] {
    return [...this.leases.values()].flatMap(({ record: { id, state } }) => {
      const counts = state === "granted" ? portCounters(this.kernel, pinFolder(this.places.bpffs, id)) : null;
      return counts === null ? [] : [{ id, ...counts }];
    });
  }

  /** Who may do with everybody's leases as with his own. */
  isAdmin({ uid }: Asker): boolean {
    return uid === 0 || uid === process.geteuid?.() || this.policy.admins.has(uid);
  }

  /**
   * Grants a lease. Everything is made, or nothing is left of it.
   * @throws E_LEASE_DENIED, E_FLOW_TAKEN, E_FOREIGN_XDP, E_LEASE_UNSUPPORTED, E_BROKER_FULL and those of a plan.
   */
  grant(client: Client, request: LeaseRequest): Granting {
    const { uid, pid } = client;
    const about = { uid, pid, device: request.device, flows: request.flows };
    const watch = new Stopwatch();
    try {
      const rule = decide(this.policy, client, request, (name) => this.holding(uid, name));
      watch.lap("policy");
      const granting = this.make(client, request, rule, watch);
      const { id, transmit, pass } = granting.lease;
      this.tally("granted");
      this.audit.write({
        event: "lease",
        outcome: "done",
        ...about,
        lease: id,
        rule: rule.name,
        transmit,
        pass,
        took: watch.laps,
      });
      return granting;
    } catch (thrown) {
      const error = wrapError(thrown, `lease '${request.flows.join("', '")}' on ${request.device}`);
      this.tally("denied");
      this.audit.write({ event: "lease", outcome: error.code, ...about, why: error.message });
      throw error;
    }
  }

  private holding(uid: number, rule: string): Holding {
    const mine = [...this.leases.values()].filter(
      ({ record }) => record.client.uid === uid && record.rule === rule,
    );
    return {
      leases: mine.length,
      memory: mine.reduce((sum, { record }) => sum + poolBytes(record.request), 0),
    };
  }

  private make(client: Client, request: LeaseRequest, rule: Rule, watch: Stopwatch): Granting {
    const what = `lease '${request.flows.join("', '")}' on ${request.device}`;
    if (request.mechanism === "queue") {
      throw new BifurcateError("E_LEASE_UNSUPPORTED", {
        what,
        why: "this broker leases ports; own queues need a card with ntuple rules and have not run on hardware",
        next: "Ask for the mechanism 'port' or 'auto'.",
      });
    }
    if (request.zeroCopy === "require") {
      throw new BifurcateError("E_NO_ZERO_COPY", { what, why: "a lease port is veth, which copies" });
    }
    const identity = identify(client.pid);
    if (identity === null) {
      throw new BifurcateError("E_LEASE_DENIED", { what, why: "the process that asked has ended" });
    }
    const link = findLink(this.netns.links(), request.device);
    const card = this.cards.get(link.index);
    this.checkTaken(what, link.index, request.flows);
    const { plan, facts } = this.plan(request, card);
    watch.lap("facts and plan");
    if (request.pass && plan.path.mode === "generic") {
      throw new BifurcateError("E_NO_PASS", {
        what,
        why: "the card's program runs in generic mode, and would see a passed frame again",
        next: "Lease without pass, or on a card whose driver has XDP.",
      });
    }
    const id = this.freshId();
    const names = portNames(id, request.pass);
    const portCard: PortCard = {
      ifindex: link.index,
      mtu: link.mtu,
      mac: link.mac,
      mode: plan.path.mode ?? "driver",
      addresses: facts.addresses.map(({ address }) => address.replace(/%.*$/, "")),
    };
    const onCard = card ?? this.card(portCard, link.name);
    const record: LeaseRecord = {
      version: 1,
      id,
      state: "reserved",
      since: new Date().toISOString(),
      bootId: bootId(),
      netnsInode: this.netns.inode,
      card: { ifindex: link.index, name: link.name },
      slot: onCard.freeSlot(),
      names,
      client: { ...identity, uid: client.uid },
      rule: rule.name,
      draining: rule.draining,
      request,
      granted: null,
    };
    writeRecord(this.places.state, record);
    watch.lap("record");
    const live: Live = { record, process: null, timer: null };
    this.leases.set(id, live);
    try {
      return this.open(live, portCard, onCard, { facts, plan, rate: rule.rate, watch });
    } catch (thrown) {
      this.advance(live, "fail");
      this.clear(live);
      throw thrown;
    }
  }

  /** Makes port and sockets, and turns the flow to them. */
  private open(
    live: Live,
    portCard: PortCard,
    card: Card,
    {
      facts,
      plan,
      rate,
      watch,
    }: {
      readonly facts: Facts;
      readonly plan: Plan;
      readonly rate: number | null;
      readonly watch: Stopwatch;
    },
  ): Granting {
    const { record } = live;
    const { request, names } = record;
    const folder = pinFolder(this.places.bpffs, record.id);
    const port = makePort(this.kernel, this.netns, portCard, names, request, rate, folder);
    watch.lap("port and sockets");
    const { sockets, ways } = port;
    const descriptors = [sockets.memory, ...sockets.sockets, ...ways];
    try {
      card.add(record.slot, request.flows, port.near);
      watch.lap("program on the card");
      this.watch(live);
    } catch (thrown) {
      for (const each of descriptors) each.close();
      throw thrown;
    }
    const { obtained, filled } = sockets;
    const lease: GrantedLease = {
      id: record.id,
      device: record.card.name,
      mechanism: "port",
      port: names.far,
      mtu: portCard.mtu,
      mac: portCard.mac,
      queues: request.queues,
      transmit: request.transmit,
      pass: request.pass,
      frames: request.frames,
      frameSize: request.frameSize,
      jumboFrames: obtained.multiBuffer ? jumboFrames(request) : 0,
      ringSize: request.ringSize,
      filled,
      zeroCopy: obtained.zeroCopy,
      needWakeup: obtained.needWakeup,
      multiBuffer: obtained.multiBuffer,
      busyPoll: obtained.busyPoll,
      leftToCard: this.kernel.isVirtualDriver(facts.driver.driver) || portCard.mode === "generic",
      xdp: portCard.mode,
      bypasses: plan.bypasses,
      notes: obtained.refused.map((why) => `the kernel refused: ${why}`),
    };
    this.advance(live, "grant", { granted: lease });
    return {
      lease,
      descriptors,
      sent: (ok) => {
        for (const each of descriptors) each.close();
        if (!ok) this.end(record.id, "return", "the descriptors could not be passed");
      },
    };
  }

  /** Plans as a split would, so that the same things are refused, and tells the card's mode. */
  private plan(request: LeaseRequest, card: Card | undefined): { plan: Plan; facts: Facts } {
    const link = findLink(this.netns.links(), request.device);
    const others = splitsOn(this.places.splits, this.netns.inode, link.index);
    const read = readFacts(this.kernel, this.netns, request.device, others);
    // The program there is ours.
    const facts = card !== undefined && card.attached ? { ...read, xdp: null } : read;
    const plan = makePlan(
      facts,
      {
        ifname: request.device,
        flows: request.flows,
        backend: "af_xdp",
        zeroCopy: "off",
        steering: "shared",
        mode: card?.mode ?? "auto",
      },
      compileFlow,
    );
    const step = plan.steps[0];
    if (step === undefined) return { plan, facts };
    throw new BifurcateError("E_LEASE_UNSUPPORTED", {
      what: `lease '${request.flows.join("', '")}' on ${request.device}`,
      why: `a setting of the card has to be changed first, and a broker changes none: ${step.words}`,
      next: "Have root make the change with ethtool before the broker is started.",
    });
  }

  private card(card: PortCard, name: string): Card {
    const made = new Card(this.kernel, this.netns, card.ifindex, name, card.mode, this.places.bpffs);
    this.cards.set(card.ifindex, made);
    return made;
  }

  /** @throws E_FLOW_TAKEN where a flow may meet another lease's. */
  private checkTaken(what: string, ifindex: number, flows: readonly string[]): void {
    const mine = flows.map(compileFlow);
    for (const { record } of this.leases.values()) {
      if (record.card.ifindex !== ifindex) continue;
      for (const text of record.request.flows) {
        const theirs = compileFlow(text);
        const taken = mine.find((each) => each.overlaps(theirs));
        if (taken === undefined) continue;
        // Whose it is, is not for everybody to know.
        throw new BifurcateError("E_FLOW_TAKEN", {
          what,
          why: `'${taken.text}' overlaps a flow that is leased already`,
          next: "Choose a flow that does not overlap, or wait until the other lease ends.",
          data: { flow: taken.text },
        });
      }
    }
  }

  private freshId(): string {
    for (;;) {
      const id = `lease-${randomBytes(4).toString("hex")}`;
      if (!this.leases.has(id)) return id;
    }
  }

  private watch(live: Live): void {
    const { pid } = live.record.client;
    live.process = this.machine.process(pid);
    // The handle is of whoever has the number now; that must still be who asked.
    if (!isAlive(live.record.client)) throw new Error(`the process ${pid} has ended`);
    live.process.onEnd(() => this.end(live.record.id, "death", `process ${pid} ended`));
  }

  /** Whether that process holds the lease: who may return or resume it. */
  holds(id: string, client: ProcessIdentity): boolean {
    const found = this.leases.get(id)?.record.client;
    return found !== undefined && found.pid === client.pid && found.startTime === client.startTime;
  }

  /** A lease that this user may end, or E_NO_SUCH_LEASE: of others' he learns not even that they are. */
  find(id: string, asker: Asker): LeaseRecord {
    const record = this.leases.get(id)?.record;
    if (record !== undefined && (record.client.uid === asker.uid || this.isAdmin(asker))) return record;
    throw new BifurcateError("E_NO_SUCH_LEASE", {
      what: `find the lease ${id}`,
      why: "there is none of that name among those that you may see",
    });
  }

  /** Ends a lease: its flow is with the kernel when this returns. */
  end(id: string, event: "return" | "death" | "release" | "loss", why: string, by?: Asker): void {
    const live = this.leases.get(id);
    if (live === undefined || next(live.record.state, event) === null) return;
    const { record } = live;
    this.advance(live, event);
    this.tally(event);
    let outcome = "done";
    try {
      this.cards.get(record.card.ifindex)?.steer(record.slot);
      this.takeAway(live, event);
    } catch (thrown) {
      outcome = wrapError(thrown, `end ${id}`).code;
      why += `; ${messageOf(thrown)}`;
    }
    const { uid, pid } = record.client;
    this.audit.write({
      event: event === "release" ? "release" : "end",
      outcome,
      uid,
      pid,
      lease: id,
      device: record.card.name,
      flows: record.request.flows,
      by: by?.uid,
      why,
    });
    if (event !== "return") this.onRevoked(id, why);
  }

  /** After the flow is with the kernel: takes the port away, or waits until nobody holds it. */
  private takeAway(live: Live, event: LeaseEvent): void {
    const { record } = live;
    const held = event === "death" && record.draining !== "delete-port" && this.isHeld(record);
    if (!held) return this.clear(live);
    this.advance(live, "held");
    const look = (): void => {
      if (this.isHeld(record)) return;
      this.clear(live);
    };
    live.timer = setInterval(look, DRAIN_MS);
  }

  /** Whether a copy of one of its sockets is open somewhere. */
  private isHeld(record: LeaseRecord): boolean {
    try {
      return this.netns.isQueueHeld(record.names.far, 0);
    } catch {
      return false;
    }
  }

  /** Nothing is left of it afterwards: interfaces, names, record. */
  private clear(live: Live): void {
    const { record } = live;
    if (live.timer !== null) clearInterval(live.timer);
    live.process?.close();
    live.process = null;
    const card = this.cards.get(record.card.ifindex);
    card?.remove(record.slot);
    removePort(this.netns, record.names, pinFolder(this.places.bpffs, record.id));
    if (card?.size === 0) this.cards.delete(record.card.ifindex);
    this.leases.delete(record.id);
    removeRecord(this.places.state, record.id);
  }

  private advance(live: Live, event: LeaseEvent, change: Partial<LeaseRecord> = {}): void {
    const state = next(live.record.state, event);
    if (state === null) throw new Error(`a lease that is ${live.record.state} cannot ${event}`);
    live.record = { ...live.record, ...change, state };
    writeRecord(this.places.state, live.record);
  }

  private tally(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /**
   * Takes over the leases that another broker has left: those whose client lives go on, all others are taken away.
   * Never throws for one lease: all are tried.
   */
  adopt(): { readonly adopted: number; readonly ended: number } {
    removeUnfinished(this.places.state);
    const { records, errors } = readRecords(this.places.state);
    for (const error of errors) {
      this.audit.write({ event: "adopt", outcome: error.code, why: error.message });
    }
    // All of them first: a program that is made anew must know every lease.
    const found = records.filter((record) => this.register(record));
    let [adopted, ended] = [0, records.length - found.length];
    for (const record of found) {
      const { id, client } = record;
      const about = { uid: client.uid, pid: client.pid, lease: id, device: record.card.name };
      try {
        const why = this.adoptOne(record);
        if (why === null) adopted++;
        else ended++;
        const outcome = why === null ? "done" : "ended";
        this.audit.write({ event: "adopt", outcome, ...about, why: why ?? undefined });
      } catch (thrown) {
        const { code, message } = wrapError(thrown, `adopt ${id}`);
        this.audit.write({ event: "adopt", outcome: code, ...about, why: message });
      }
    }
    return { adopted, ended };
  }

  /** Notes a lease that another broker has left; false where nothing is left of it but its record. */
  private register(record: LeaseRecord): boolean {
    if (record.bootId !== bootId()) {
      removePins(pinFolder(this.places.bpffs, record.id));
      removeRecord(this.places.state, record.id);
      return false;
    }
    // Of another namespace: another broker's.
    if (record.netnsInode !== this.netns.inode) return false;
    this.leases.set(record.id, { record, process: null, timer: null });
    const { ifindex, name } = record.card;
    let card = this.cards.get(ifindex);
    if (card === undefined) {
      card = new Card(
        this.kernel,
        this.netns,
        ifindex,
        name,
        record.granted?.xdp ?? "driver",
        this.places.bpffs,
      );
      card.adopt();
      this.cards.set(ifindex, card);
    }
    card.note(record.slot, record.request.flows);
    return true;
  }

  /** null when it goes on, else why not. */
  private adoptOne(record: LeaseRecord): string | null {
    const live = this.leases.get(record.id)!;
    const why = this.whyNot(record);
    if (why === null) this.watch(live);
    else this.clear(live);
    return why;
  }

  private whyNot({ card, state, names, client }: LeaseRecord): string | null {
    if (this.cards.get(card.ifindex)?.attached !== true) return "the card's program is gone";
    if (state !== "granted") return `it was ${state}`;
    if (!this.netns.links().some((each) => each.name === names.far)) return "its port is gone";
    return isAlive(client) ? null : `process ${client.pid} has ended`;
  }

  /** Ends the leases of a card, or of a port, that is no longer there. */
  lost(ifindex: number, name: string): void {
    for (const { record } of [...this.leases.values()]) {
      const { card, names, id } = record;
      if (card.ifindex === ifindex) this.end(id, "loss", `the card ${card.name} is gone`);
      else if (names.far === name || names.near === name) this.end(id, "loss", "its port was deleted");
    }
  }

  /** Ends the broker and leaves the leases as they are, for the next one to adopt. */
  leave(): void {
    for (const live of this.leases.values()) {
      live.process?.close();
      if (live.timer !== null) clearInterval(live.timer);
    }
    for (const card of this.cards.values()) card.leave();
    this.leases.clear();
    this.cards.clear();
  }
}

function jumboFrames(request: LeaseRequest): number {
  return 48 * request.queues;
}

function listed({ id, state, card, request, client, since }: LeaseRecord): ListedLease {
  return {
    id,
    state,
    device: card.name,
    flows: request.flows,
    mechanism: "port",
    transmit: request.transmit,
    pass: request.pass,
    uid: client.uid,
    pid: client.pid,
    memory: poolBytes(request),
    since,
  };
}
