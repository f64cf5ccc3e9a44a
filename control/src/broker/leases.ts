// The leases of one namespace: granted by policy, watched, ended, adopted. Knows no socket and no message.
import { BifurcateError, wrapError } from "../errors.js";
import { findLink, readFacts } from "../facts/facts.js";
import { isAlive, type ProcessIdentity } from "../facts/processes.js";
import { writeRecord, type LeaseRecord, type OwnQueues } from "../lease/record.js";
import { next, steers } from "../lease/state.js";
import type { LeaseRequest, ListedLease } from "../protocol/messages.js";
import { splitsOn } from "../transaction/registry.js";
import { adoptAll } from "./adoption.js";
import { auditDenied, auditEnded, auditGranted } from "./answers.js";
import type { Audit } from "./audit.js";
import { Card } from "./card.js";
import { Ending } from "./ending.js";
import { ownNamespace } from "./foreign.js";
import { chooseGround, modeOn, type Asked } from "./ground.js";
import { ownersOf, type Inventory } from "./inventory.js";
import { LeaseJournal } from "./journal.js";
import { listed } from "./listing.js";
import type { Client, Granting, Live, Owner, Places } from "./live.js";
import type { BrokerKernel, BrokerNetns, Locals } from "./machine.js";
import { checkPass, open, type Opened } from "./opening.js";
import { decide, leaseWords, type Asker, type Holding, type Policy, type Rule } from "./policy.js";
import { poolBytes } from "./pool.js";
import { pinFolder, portCounters, type PortCard } from "./port.js";
import { freshId, ownerOf, reservation, type Place, type Reserved } from "./reservation.js";
import { Stopwatch } from "./stopwatch.js";
import { checkTaken, holding } from "./taken.js";
import { checkWanted, checkWhole, openWhole, type OpenedCard } from "./whole-card.js";

/** All leases of a namespace. */
export class Leases {
  private readonly cards = new Map<number, Card>();
  private readonly leases = new Map<string, Live>();
  private readonly journal: LeaseJournal;
  private readonly inventory: Inventory;
  private readonly ending: Ending;
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
  ) {
    this.journal = new LeaseJournal(places.state, audit);
    const { cards, leases, journal } = this;
    this.inventory = { kernel, netns, places, audit, journal, cards, leases };
    this.ending = new Ending(this.inventory);
  }

  /** Everything that may be shown to that user. */
  list(asker: Asker): ListedLease[] {
    return this.records()
      .filter((record) => record.client.uid === asker.uid || this.isAdmin(asker))
      .map(listed);
  }

  /** All of them, for metrics. */
  all(): ListedLease[] {
    return this.records().map(listed);
  }

  private records(): LeaseRecord[] {
    return [...this.leases.values()].map(({ record }) => record);
  }

  /** What the checks on live leases' ports have let out and dropped so far. */
  transmitted(): {
    readonly id: string;
    readonly allowed: number;
    readonly denied: number;
    readonly limited: number;
  }[] {
    return this.records().flatMap(({ id, state }) => {
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
    const asking = new Stopwatch();
    try {
      const rule = this.allowed(client, request);
      asking.lap("policy");
      return this.granted(client, this.make(client, request, rule, asking), asking);
    } catch (thrown) {
      throw this.denied(client, request, thrown);
    }
  }

  /**
   * Grants a lease of a whole card, which may take long, since the kernel resets cards and has locks for that; others are
   * served meanwhile. Everything is made, or nothing is left of it.
   * @throws E_LEASE_DENIED, E_CARD_BUSY, E_CARD_NOT_TAKEN and others of cards, E_LEASE_REVOKED when it was released.
   */
  async grantCard(client: Client, request: LeaseRequest): Promise<Granting> {
    const asking = new Stopwatch();
    try {
      const rule = this.allowed(client, request);
      asking.lap("policy");
      return this.granted(client, await this.makeWhole(client, request, rule, asking), asking);
    } catch (thrown) {
      throw this.denied(client, request, thrown);
    }
  }

  /** The rule that gives it, which takes so many bytes. @throws E_LEASE_DENIED */
  private allowed(client: Client, request: LeaseRequest, memory = poolBytes(request, null)): Rule {
    const held = (name: string): Holding => holding(this.records(), client.uid, name);
    return decide(this.policy, client, request, held, memory);
  }

  private granted(client: Client, granting: Granting, watch: Stopwatch): Granting {
    this.tally("granted");
    const { request, rule } = this.leases.get(granting.lease.id)!.record;
    auditGranted(this.audit, client, granting.lease, request.flows, rule, watch.laps);
    return granting;
  }

  private denied(client: Client, request: LeaseRequest, thrown: unknown): BifurcateError {
    const error = wrapError(thrown, leaseWords(request));
    this.tally("denied");
    auditDenied(this.audit, client, request, error);
    return error;
  }

  private make(client: Client, request: LeaseRequest, first: Rule, watch: Stopwatch): Granting {
    const what = leaseWords(request);
    const owner = ownerOf(client, what);
    const link = findLink(this.netns.links(), request.device);
    const card = this.cards.get(link.index);
    checkTaken(what, link.index, request.flows, this.records());
    const seen = { request, mode: card?.mode ?? null, ...this.facts(request, link.index, card) };
    const { facts, carved } = seen;
    const memory = poolBytes(request, { mtu: link.mtu, mode: modeOn(seen) ?? "driver" });
    // What the card's long frames take beside, the rule has to give too; or another one does.
    const rule = memory === poolBytes(request, null) ? first : this.allowed(client, request, memory);
    const ground = chooseGround({ ...seen, rule });
    watch.lap("facts and plan");
    checkPass(what, request, ground);
    const theirs = request.mechanism === "foreign" ? ownNamespace(what, client, this.netns.inode) : null;
    const about: PortCard = {
      ifindex: link.index,
      mtu: link.mtu,
      mac: link.mac,
      mode: ground.plan.path.mode ?? "driver",
      addresses: facts.addresses.map(({ address }) => address.replace(/%.*$/, "")),
    };
    const onCard = card ?? this.card(about, link.name);
    const onLink = {
      card: { ifindex: link.index, name: link.name },
      slot: onCard.freeSlot(),
      own: ground.own,
    };
    const live = this.reserve(owner, request, { rule, memory }, onLink);
    watch.lap("record");
    try {
      const opened = open({
        kernel: this.kernel,
        netns: this.netns,
        record: live.record,
        card: onCard,
        about,
        facts,
        ground,
        rate: rule.rate,
        client: theirs,
        folder: pinFolder(this.places.bpffs, live.record.id),
        carved,
        note: (own) => this.journal.write(live, { own }),
        watch,
      });
      return this.hand(live, opened);
    } catch (thrown) {
      this.ending.finish(live, "fail");
      throw thrown;
    } finally {
      theirs?.close();
    }
  }

  /** A card by VFIO: no interface, no flow, no program. */
  private async makeWhole(
    client: Client,
    request: LeaseRequest,
    rule: Rule,
    watch: Stopwatch,
  ): Promise<Granting> {
    const what = leaseWords(request);
    const owner = ownerOf(client, what);
    checkWhole(what, request, this.records());
    const on = { card: { ifindex: 0, name: request.device }, slot: -1, own: null };
    const live = this.reserve(owner, request, { rule, memory: poolBytes(request, null) }, on);
    watch.lap("record");
    live.making = true;
    let opened: OpenedCard | null = null;
    try {
      opened = await openWhole(this.kernel, live.record);
      watch.lap("card and memory");
    } finally {
      live.making = false;
      if (opened === null) this.unmake(live, "fail");
    }
    [live.loan, live.kept] = [opened.loan, opened.kept];
    try {
      checkWanted(what, live, this.leases.get(live.record.id) === live);
      return this.hand(live, opened);
    } catch (thrown) {
      for (const each of opened.descriptors) each.close();
      this.unmake(live, "death");
      throw thrown;
    }
  }

  /** Takes away what was made of a card's lease, whatever has become of the lease meanwhile. */
  private unmake(live: Live, event: "fail" | "death"): void {
    if (this.leases.get(live.record.id) !== live) {
      // The broker has ended; its record is the next one's.
      live.loan?.close();
      live.kept?.close();
      return;
    }
    this.ending.finish(live, event);
  }

  /** Writes a lease down, before anything of it is made. */
  private reserve(
    owner: Owner,
    request: LeaseRequest,
    by: Pick<Reserved, "rule" | "memory">,
    on: Place,
  ): Live {
    const id = freshId((each) => this.leases.has(each));
    const record = reservation({ id, owner, request, ...by, on, netnsInode: this.netns.inode });
    writeRecord(this.places.state, record);
    const live: Live = { record, process: null, timer: null, steered: true };
    this.leases.set(record.id, live);
    return live;
  }

  /** Watches the client from now on, and gives what it gets. */
  private hand(live: Live, { lease, descriptors }: Opened): Granting {
    try {
      this.watch(live);
      this.journal.advance(live, "grant", { granted: lease });
    } catch (thrown) {
      for (const each of descriptors) each.close();
      throw thrown;
    }
    return {
      lease,
      descriptors,
      sent: (ok) => {
        for (const each of descriptors) each.close();
        if (!ok) this.end(lease.id, "return", "the descriptors could not be passed");
      },
    };
  }

  /** The facts of a card, and what of it leases have already. */
  private facts(
    request: LeaseRequest,
    ifindex: number,
    card: Card | undefined,
  ): Pick<Asked, "facts" | "taken" | "carved" | "before"> {
    const others = splitsOn(this.places.splits, this.netns.inode, ifindex);
    const ours = card !== undefined && card.attached;
    const read = readFacts(this.kernel, this.netns, request.device, others, ours);
    const facts = ours ? { ...read, xdp: null } : read;
    const own = ownersOf(this.inventory, ifindex).map(({ record }) => record.own!);
    const carved = own.filter((each) => each.before !== null);
    const queues = (all: readonly OwnQueues[]): number[] => all.flatMap((each) => each.queues);
    return { facts, taken: queues(own), carved: queues(carved), before: carved[0]?.before ?? null };
  }

  private card(card: PortCard, name: string): Card {
    const made = new Card(this.kernel, this.netns, card.ifindex, name, card.mode, this.places.bpffs);
    this.cards.set(card.ifindex, made);
    return made;
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
    const found = this.leases.get(id)?.record;
    if (found === undefined || !steers(found.state)) return false;
    return found.client.pid === client.pid && found.client.startTime === client.startTime;
  }

  /** Its client is there: it is not looked for any more. */
  heard(id: string): void {
    clearTimeout(this.leases.get(id)?.timer ?? undefined);
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

  /** Ends a lease: when this returns its flow is with the kernel; a card that this broker lent reaches no memory. */
  end(id: string, event: "return" | "death" | "release" | "loss", why: string, by?: Asker): void {
    const live = this.leases.get(id);
    if (live === undefined || next(live.record.state, event) === null) return;
    const { record } = live;
    this.heard(id);
    this.journal.end(live, event);
    this.tally(event);
    const failed = live.making === true ? null : this.ending.tryTakeAway(live, event);
    const outcome = failed?.code ?? "done";
    if (failed !== null) why += `; ${failed.why}`;
    auditEnded(this.audit, record, event, outcome, why, by?.uid);
    if (event !== "return") this.onRevoked(id, why);
  }

  private tally(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /** Takes over the leases that another broker has left. Never throws for one lease: all are tried. */
  adopt(): { readonly adopted: number; readonly ended: number } {
    const watch = (live: Live): void => this.watch(live);
    const lose = (id: string, why: string): void => this.end(id, "loss", why);
    return adoptAll(this.inventory, { ending: this.ending, watch, lose });
  }

  /** Ends the leases of a card, or of a port, that is no longer there. */
  lost(ifindex: number, name: string): void {
    for (const { card, names, id, request } of this.records()) {
      if (card.ifindex === ifindex) this.end(id, "loss", `the card ${card.name} is gone`);
      // A foreign port's far end has moved, and has not gone.
      else if (
        name !== "" &&
        (names.near === name || (names.far === name && request.mechanism !== "foreign"))
      )
        this.end(id, "loss", "its port was deleted");
    }
  }

  /** Ends the broker and leaves the leases as they are, for the next one to adopt. */
  leave(): void {
    for (const live of this.leases.values()) {
      live.process?.close();
      live.loan?.close();
      live.kept?.close();
      if (live.timer !== null) clearTimeout(live.timer);
    }
    for (const card of this.cards.values()) card.leave();
    this.leases.clear();
    this.cards.clear();
  }
}
