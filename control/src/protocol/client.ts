// A client's side of the protocol: one connection to a broker, one answer for each request.
import { existsSync } from "node:fs";
import { locals, type Connection, type Descriptor } from "../broker/machine.js";
import { brokerSocket } from "../broker/socket.js";
import { BifurcateError, errnoOf, messageOf } from "../errors.js";
import { BadMessage } from "./fields.js";
import {
  ANSWER_LONGEST,
  encode,
  parseBrokerMessage,
  VERSIONS,
  type BrokerMessage,
  type ClientMessage,
  type GrantedLease,
  type LeaseRequest,
  type ListedLease,
} from "./messages.js";

/** How long a broker may take for an answer, ms: making a port takes some ten. */
export const ANSWER_MS = 30_000;

/** A lease and what it consists of. */
export interface ReceivedLease {
  readonly lease: GrantedLease;
  readonly memory: Descriptor;
  readonly sockets: readonly Descriptor[];
  /** Queues of the return port. */
  readonly ways: readonly Descriptor[];
}

/** A lease whose sockets the client makes itself. */
export interface ForeignLease {
  /** `port` is an interface of the network namespace that asked. */
  readonly lease: GrantedLease;
  /** The XSKMAP that takes the socket of the port's queue 0. */
  readonly map: Descriptor;
  /** The map's name in a BPF file system, to be opened as /proc/self/fd/N. */
  readonly name: Descriptor;
}

/** A card that is leased whole. */
export interface CardLease {
  readonly lease: GrantedLease;
  /** The memory file of frames and rings. */
  readonly memory: Descriptor;
  /** The card's VFIO descriptor. */
  readonly device: Descriptor;
}

/** Who serves. */
export type Welcome = Extract<BrokerMessage, { readonly type: "welcome" }>;

/** Who holds a lease that was granted, or resumed, over a connection. */
export interface BrokerListener {
  /** A lease was taken back. */
  revoked(lease: string, why: string): void;
  /** The broker has closed the connection; told once, and last. */
  closed(): void;
}

/** Revocations that are kept until somebody listens: more than one connection has leases. */
const EARLY_MOST = 1024;

interface Answer {
  readonly message: BrokerMessage;
  readonly descriptors: readonly Descriptor[];
}

interface Pending {
  resolve(answer: Answer): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/** A connection to a broker. It does not keep the process alive while nothing is asked. */
export class BrokerConnection {
  welcome!: Welcome;
  private listener: BrokerListener | undefined;
  /** What the listener has yet to hear, by lease; and whether it has yet to hear of the end. */
  private readonly early = new Map<string, string>();
  private gone = false;
  private readonly pending = new Map<number | "hello", Pending>();
  private last = 0;
  private open = true;

  private constructor(
    private readonly connection: Connection,
    private readonly path: string,
  ) {}

  /**
   * Connects and says hello.
   * @param ms How long the answer may take.
   * @throws E_NO_BROKER, E_BROKER_PROTOCOL, E_BROKER_FULL.
   */
  static async connect(path = brokerSocket(), name = "", ms = ANSWER_MS): Promise<BrokerConnection> {
    const what = `connect to the broker at ${path}`;
    if (!existsSync(path)) throw new BifurcateError("E_NO_BROKER", { what, why: "there is no such socket" });
    let connection: Connection;
    try {
      connection = locals().connect(path);
    } catch (thrown) {
      throw new BifurcateError("E_NO_BROKER", { what, why: messageOf(thrown), cause: thrown });
    }
    const made = new BrokerConnection(connection, path);
    made.listen();
    const answer = made.wait("hello", ms);
    made.send({ type: "hello", versions: VERSIONS, name });
    const { message } = await answer;
    if (message.type !== "welcome") throw made.broken(`it answered hello with '${message.type}'`);
    made.welcome = message;
    return made;
  }

  /**
   * From now on tells who holds a lease of its end, and of the connection's: also of what came before, since a broker that
   * grants or resumes may take back, or end, in the same moment. It is told soon, never within this call. One listens.
   */
  follow(listener: BrokerListener): void {
    this.listener = listener;
    queueMicrotask(() => this.tell());
  }

  /** Asks for a lease. @throws E_LEASE_DENIED, E_FLOW_TAKEN and what else the broker answers. */
  async lease(lease: LeaseRequest): Promise<ReceivedLease> {
    const request = this.next();
    const { message, descriptors } = await this.ask({ type: "lease", request, lease });
    const close = (): void => descriptors.forEach((each) => each.close());
    if (message.type !== "granted") {
      close();
      throw this.broken(`it answered 'lease' with '${message.type}'`);
    }
    const { queues, pass, mechanism } = message.lease;
    if (mechanism === "foreign" || mechanism === "vfio") {
      close();
      throw this.broken("it gave a lease that was not asked for");
    }
    const [memory, ...rest] = descriptors;
    if (memory === undefined || rest.length !== queues * (pass ? 2 : 1)) {
      close();
      throw this.broken(`${descriptors.length} descriptors came with a lease of ${queues} queues`);
    }
    return { lease: message.lease, memory, sockets: rest.slice(0, queues), ways: rest.slice(queues) };
  }

  /**
   * Asks for a lease in this process's own network namespace, for a program that makes its AF_XDP socket itself.
   * @throws as `lease`.
   */
  async leaseForeign(lease: LeaseRequest): Promise<ForeignLease> {
    if (this.welcome.version < 2) {
      throw this.broken("it is of a version that knows no foreign leases");
    }
    const request = this.next();
    const asked = { ...lease, mechanism: "foreign" } as const;
    const { message, descriptors } = await this.ask({ type: "lease", request, lease: asked });
    const [map, name, ...rest] = descriptors;
    const whole = map !== undefined && name !== undefined && rest.length === 0;
    if (whole && message.type === "granted" && message.lease.mechanism === "foreign") {
      return { lease: message.lease, map, name };
    }
    for (const each of descriptors) each.close();
    throw this.broken(`it answered with '${message.type}' and ${descriptors.length} descriptors`);
  }

  /** Asks for a card, whole, by VFIO. @throws as `lease`, and E_CARD_BUSY, E_CARD_NOT_TAKEN, E_CARD_GROUP. */
  async leaseCard(lease: LeaseRequest): Promise<CardLease> {
    if (this.welcome.version < 3) throw this.broken("it is of a version that leases no cards");
    const request = this.next();
    const asked = { ...lease, mechanism: "vfio" } as const;
    const { message, descriptors } = await this.ask({ type: "lease", request, lease: asked });
    const [memory, device, ...rest] = descriptors;
    const whole = memory !== undefined && device !== undefined && rest.length === 0;
    if (whole && message.type === "granted" && message.lease.mechanism === "vfio") {
      return { lease: message.lease, memory, device };
    }
    for (const each of descriptors) each.close();
    throw this.broken(`it answered with '${message.type}' and ${descriptors.length} descriptors`);
  }

  /**
   * Gives a lease back.
   * @param ms How long the answer may take: with none left, it is told and not waited for.
   * @throws E_NO_SUCH_LEASE; E_NO_BROKER when it ends; E_BROKER_PROTOCOL when the time is over, with the connection closed.
   */
  async return(lease: string, ms = ANSWER_MS): Promise<void> {
    await this.ask({ type: "return", request: this.next(), lease }, ms);
  }

  /**
   * Tells a broker that came later that this process still has the lease. The answer is waited for as long as the connection
   * lasts: a broker that hangs may have taken the lease, which would end with the connection.
   * @throws E_NO_SUCH_LEASE; E_NO_BROKER when that one ends too.
   */
  async resume(lease: string): Promise<void> {
    await this.ask({ type: "resume", request: this.next(), lease }, null);
  }

  /** Takes a lease away from whoever has it. @throws E_NO_SUCH_LEASE */
  async release(lease: string): Promise<void> {
    await this.ask({ type: "release", request: this.next(), lease });
  }

  /** The leases that this user may see, page by page. */
  async list(): Promise<readonly ListedLease[]> {
    const all: ListedLease[] = [];
    let after: string | undefined;
    do {
      const from = after === undefined ? {} : { after };
      const { message } = await this.ask({ type: "list", request: this.next(), ...from });
      if (message.type !== "leases") throw this.broken(`it answered 'list' with '${message.type}'`);
      all.push(...message.leases);
      if (message.next !== undefined && message.leases.length === 0) throw this.broken("its list has no end");
      after = message.next;
    } while (after !== undefined);
    return all;
  }

  /** Closes the connection: leases that were granted over it end. */
  close(): void {
    this.listener = { revoked: () => undefined, closed: () => undefined };
    this.end(
      new BifurcateError("E_CLOSED", { what: "talk to the broker", why: "the connection was closed" }),
    );
  }

  private next(): number {
    this.last = (this.last + 1) % 0xffff_ffff;
    return this.last;
  }

  private async ask(
    message: Exclude<ClientMessage, { readonly type: "hello" }>,
    ms: number | null = ANSWER_MS,
  ): Promise<Answer> {
    if (!this.open) {
      const what = `ask the broker at ${this.path}`;
      throw new BifurcateError("E_NO_BROKER", { what, why: "the connection is closed" });
    }
    const answer = this.wait(message.request, ms);
    this.send(message);
    return answer;
  }

  /** @param ms Null: until the connection ends; it keeps the process alive no longer than another request does. */
  private wait(key: number | "hello", ms: number | null): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const late = (): void => this.end(this.broken(`it did not answer within ${Math.ceil(ms! / 1000)} s`));
      const timer = setTimeout(ms === null ? () => undefined : late, ms ?? ANSWER_MS);
      this.pending.set(key, { resolve, reject, timer });
    });
  }

  private send(message: ClientMessage): void {
    try {
      if (!this.open) throw new Error("the connection is closed");
      if (!this.connection.send(encode(message), [])) throw new Error("it does not read what it is sent");
    } catch (thrown) {
      const why = messageOf(thrown);
      const gone = errnoOf(thrown) === "EPIPE" || errnoOf(thrown) === "ECONNRESET";
      // A broker that closes says why before: that it is full, say.
      if (gone) this.receive();
      this.end(
        new BifurcateError(gone ? "E_NO_BROKER" : "E_SYSTEM", {
          what: `ask the broker at ${this.path}`,
          why,
          cause: thrown,
        }),
      );
    }
  }

  private listen(): void {
    this.connection.onReady(() => this.readable(), true);
  }

  private readable(): void {
    this.receive();
    if (this.open) this.listen();
  }

  /** Takes what has come, and waits for nothing. */
  private receive(): void {
    try {
      while (this.open) {
        const got = this.connection.receive(ANSWER_LONGEST);
        if (got === null) return;
        const { bytes, descriptors, cut } = got;
        if (bytes === undefined || bytes === null) {
          return this.end(
            new BifurcateError("E_NO_BROKER", {
              what: `ask the broker at ${this.path}`,
              why: "it closed the connection",
            }),
          );
        }
        if (cut) throw new BadMessage("a message, or its list of descriptors, was too long");
        this.take(parseBrokerMessage(bytes), descriptors);
      }
    } catch (thrown) {
      this.end(thrown instanceof BadMessage ? this.broken(thrown.message) : (thrown as Error));
    }
  }

  private take(message: BrokerMessage, descriptors: readonly Descriptor[]): void {
    if (message.type === "revoked") {
      if (this.early.size >= EARLY_MOST) throw new BadMessage("it takes back more leases than it gave");
      this.early.set(message.lease, message.why);
      return this.tell();
    }
    const key = message.type === "welcome" ? "hello" : message.request;
    const error = message.type === "error" ? BifurcateError.fromJSON({ error: message.error }) : null;
    // An error that answers no request is about the connection.
    if (key === null) return this.end(error!);
    const pending = this.pending.get(key);
    if (pending === undefined) {
      for (const each of descriptors) each.close();
      return;
    }
    this.pending.delete(key);
    clearTimeout(pending.timer);
    if (error === null) pending.resolve({ message, descriptors });
    else pending.reject(error);
  }

  private broken(why: string): BifurcateError {
    return new BifurcateError("E_BROKER_PROTOCOL", { what: `talk to the broker at ${this.path}`, why });
  }

  private end(error: Error): void {
    if (!this.open) return;
    this.open = false;
    this.connection.close();
    for (const each of this.pending.values()) {
      clearTimeout(each.timer);
      each.reject(error);
    }
    this.pending.clear();
    this.gone = true;
    this.tell();
  }

  private tell(): void {
    const { listener } = this;
    if (listener === undefined) return;
    for (const [lease, why] of this.early) {
      this.early.delete(lease);
      listener.revoked(lease, why);
    }
    if (!this.gone) return;
    this.gone = false;
    listener.closed();
  }
}
