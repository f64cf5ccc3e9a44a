// The broker's side of the protocol: connections, who is behind them, and one answer for each request.
import { BifurcateError, messageOf, wrapError } from "../errors.js";
import { identify, isAlive, type ProcessIdentity } from "../facts/processes.js";
import { BadMessage } from "../protocol/fields.js";
import {
  encode,
  LONGEST,
  parseClientMessage,
  VERSIONS,
  type BrokerMessage,
  type ClientMessage,
} from "../protocol/messages.js";
import type { Audit } from "./audit.js";
import type { Leases } from "./leases.js";
import type { Client, Granting } from "./live.js";
import { page } from "./listing.js";
import type { Connection, Descriptor, Listener, Locals, ProcessHandle } from "./machine.js";

/** How many connections there may be: of everybody, and of one user. */
export interface ConnectionLimits {
  readonly all: number;
  readonly user: number;
}

const LIMITS: ConnectionLimits = { all: 512, user: 128 };
/** How long a connection may take to say hello, ms. */
const HELLO_MS = 5_000;
/** Messages that one connection may have answered before others have their turn. */
const TURN = 16;

/** A request. */
type Asked = Exclude<ClientMessage, { readonly type: "hello" }>;

/** Who is at the other end. */
interface Known extends Client {
  readonly identity: ProcessIdentity;
}

/** One client's connection. */
class Session {
  readonly leases = new Set<string>();
  version: number | null = null;
  /** A request is being answered; what comes meanwhile is read afterwards, since answers come in order. */
  private answering = false;
  private readonly timer: NodeJS.Timeout;
  private open = true;

  constructor(
    private readonly connection: Connection,
    readonly known: Known,
    private readonly process: ProcessHandle | null,
    private readonly server: Server,
  ) {
    this.timer = setTimeout(() => this.late(), HELLO_MS);
    // A child that was forked may hold the connection open: it is the process that counts.
    process?.onEnd(() => this.close(null));
    this.listen();
  }

  /** The time for hello is over; a broker that was busy may not have read it yet. */
  private late(): void {
    this.readable();
    if (this.open && this.version === null) this.refuse("it did not say hello in time");
  }

  private listen(): void {
    this.connection.onReady(() => this.readable(), false);
  }

  private readable(): void {
    try {
      for (let turn = 0; turn < TURN && this.open && !this.answering; turn++) {
        const message = this.connection.receive(LONGEST);
        if (message === null) break;
        const { bytes, descriptors, cut } = message;
        for (const each of descriptors) each.close();
        if (bytes === undefined || bytes === null) return this.close(null);
        if (descriptors.length > 0) return this.refuse("a client sends no descriptors");
        if (cut) return this.refuse(`the message has more than ${LONGEST} bytes`);
        this.take(bytes);
      }
      if (this.open && !this.answering) this.listen();
    } catch (thrown) {
      this.close(messageOf(thrown));
    }
  }

  private take(bytes: Uint8Array): void {
    let message: ClientMessage;
    try {
      message = parseClientMessage(bytes);
    } catch (thrown) {
      if (!(thrown instanceof BadMessage)) throw thrown;
      return this.refuse(thrown.message);
    }
    if ((message.type === "hello") !== (this.version === null)) {
      return this.refuse(this.version === null ? "the first message is hello" : "hello is said once");
    }
    if (message.type === "hello") {
      const version = VERSIONS.find((each) => message.versions.includes(each));
      if (version === undefined) {
        const mine = VERSIONS.join(", ");
        return this.refuse(`this broker speaks version ${mine}, the client ${message.versions.join(", ")}`);
      }
      clearTimeout(this.timer);
      this.version = version;
      this.send(this.server.welcome(version));
      return;
    }
    try {
      if (message.type === "lease" && message.lease.mechanism === "vfio") void this.answerLater(message);
      else this.answer(message);
    } catch (thrown) {
      this.fail(message, thrown);
    }
  }

  private fail(message: Asked, thrown: unknown): void {
    const { type, request } = message;
    const wrapped = wrapError(thrown, `answer '${type}'`);
    // Of a lease that was not given, the leases themselves write.
    if (type === "return" || type === "resume" || type === "release") {
      const { uid, pid } = this.known;
      const { code: outcome, message: why } = wrapped;
      this.server.audit.write({ event: type, outcome, uid, pid, lease: message.lease, why });
    }
    const { error } = wrapped.toJSON();
    this.send({ type: "error", request, error });
  }

  /** A card takes the kernel its time; other connections have their turn meanwhile. */
  private async answerLater(message: Extract<Asked, { readonly type: "lease" }>): Promise<void> {
    this.answering = true;
    try {
      this.give(message.request, await this.server.leases.grantCard(this.known, message.lease));
    } catch (thrown) {
      this.fail(message, thrown);
    }
    this.answering = false;
    if (this.open) this.readable();
  }

  private give(request: number, { lease, descriptors, sent }: Granting): void {
    this.leases.add(lease.id);
    sent(this.send({ type: "granted", request, lease }, descriptors));
  }

  private answer(message: Asked): void {
    const { leases } = this.server;
    const { known } = this;
    const { request } = message;
    switch (message.type) {
      case "lease":
        return this.give(request, leases.grant(known, message.lease));
      case "list":
        this.send({
          type: "leases",
          request,
          ...page(leases.list(known), message.after ?? "", this.version!),
        });
        return;
      case "return":
      case "resume": {
        const record = leases.find(message.lease, known);
        if (!leases.holds(record.id, known.identity)) {
          throw new BifurcateError("E_NO_SUCH_LEASE", {
            what: `${message.type} the lease ${record.id}`,
            why: "it is another process's, or it was taken back",
            next: `Take it back with \`bifurcate release ${record.id}\`.`,
          });
        }
        if (message.type === "resume") {
          this.leases.add(record.id);
          leases.heard(record.id);
        } else {
          this.leases.delete(record.id);
          leases.end(record.id, "return", "its client returned it");
        }
        this.send({ type: "done", request });
        return;
      }
      case "release": {
        const record = leases.find(message.lease, known);
        leases.end(record.id, "release", `user ${known.uid} (pid ${known.pid}) took it back`, known);
        this.send({ type: "done", request });
        return;
      }
    }
  }

  /** Tells that a lease is gone, if it is one of this connection's. */
  revoked(lease: string, why: string): void {
    if (this.leases.delete(lease)) this.send({ type: "revoked", lease, why });
  }

  /** false when it could not be sent: the client does not read, so its connection ends. */
  private send(message: BrokerMessage, descriptors: readonly Descriptor[] = []): boolean {
    if (!this.open) return false;
    let sent = false;
    let why = "it does not read what it is sent";
    try {
      sent = this.connection.send(encode(message), descriptors as never);
    } catch (thrown) {
      why = messageOf(thrown);
    }
    // Not from within an answer: whoever is being answered has to be finished with first.
    if (!sent) queueMicrotask(() => this.close(why));
    return sent;
  }

  /** The peer does not speak the protocol: it is told why, and that was it. */
  private refuse(why: string): void {
    const error = new BifurcateError("E_BROKER_PROTOCOL", { what: "read a client's message", why });
    this.send({ type: "error", request: null, error: error.toJSON().error });
    this.close(why);
  }

  /** Ends the connection and returns its leases. `why`: null when the client closed it. */
  close(why: string | null): void {
    if (!this.open) return;
    this.open = false;
    clearTimeout(this.timer);
    this.connection.close();
    this.process?.close();
    const { pid, identity } = this.known;
    const dead = isAlive(identity) ? null : `process ${pid} ended`;
    for (const lease of this.leases) {
      const event = dead === null ? "return" : "death";
      this.server.leases.end(lease, event, dead ?? why ?? "its client closed the connection");
    }
    this.leases.clear();
    this.server.gone(this, why);
  }

  /** Ends the connection and leaves its leases to the next broker. */
  leave(): void {
    this.leases.clear();
    this.close(null);
  }
}

/** Serves one socket. */
export class Server {
  private readonly sessions = new Set<Session>();
  private listener: Listener | null = null;

  constructor(
    private readonly machine: Locals,
    readonly leases: Leases,
    readonly audit: Audit,
    private readonly about: { readonly broker: string; readonly netns: number },
    private readonly limits: ConnectionLimits = LIMITS,
  ) {
    leases.onRevoked = (id, why) => {
      for (const session of this.sessions) session.revoked(id, why);
    };
  }

  /** Begins to listen. */
  listen(path: string): void {
    this.listener = this.machine.listen(path);
    this.accept();
  }

  /** Connections there are. */
  get connections(): number {
    return this.sessions.size;
  }

  /** @internal */
  welcome(version: number): BrokerMessage {
    return { type: "welcome", version, pid: process.pid, ...this.about };
  }

  /** @internal */
  gone(session: Session, why: string | null): void {
    this.sessions.delete(session);
    if (why === null) return;
    const { uid, pid } = session.known;
    this.audit.write({ event: "refuse", outcome: "closed", uid, pid, why });
  }

  private accept(): void {
    const { listener } = this;
    if (listener === null) return;
    try {
      for (let turn = 0; turn < TURN; turn++) {
        const connection = listener.accept();
        if (connection === null) break;
        this.admit(connection);
      }
    } catch (thrown) {
      // No descriptor is left, most likely: those that wait go on waiting until one is.
      this.audit.write({ event: "refuse", outcome: "waiting", why: messageOf(thrown) });
      setTimeout(() => this.accept(), 100);
      return;
    }
    listener.onReady(() => this.accept());
  }

  private admit(connection: Connection): void {
    try {
      const { pid, uid, gid, groups, process } = connection.peer();
      const identity = identify(pid);
      const refused = this.full(uid);
      if (identity === null || refused !== null) {
        if (refused !== null) {
          this.audit.write({ event: "refuse", outcome: refused.code, uid, pid, why: refused.why });
          connection.send(encode({ type: "error", request: null, error: refused.toJSON().error }), []);
        }
        connection.close();
        process?.close();
        return;
      }
      const known = { pid, uid, gids: [gid, ...groups], identity, netns: () => connection.netns() };
      this.sessions.add(new Session(connection, known, process ?? null, this));
    } catch (thrown) {
      connection.close();
      this.audit.write({ event: "refuse", outcome: "closed", why: messageOf(thrown) });
    }
  }

  private full(uid: number): BifurcateError | null {
    const own = [...this.sessions].filter((each) => each.known.uid === uid).length;
    const why =
      this.sessions.size >= this.limits.all
        ? `there are ${this.limits.all} connections`
        : own >= this.limits.user
          ? `user ${uid} has ${this.limits.user} connections`
          : null;
    if (why === null) return null;
    return new BifurcateError("E_BROKER_FULL", { what: "connect to the broker", why });
  }

  /** Listens no more, ends every connection, and leaves the leases. */
  close(): void {
    this.listener?.close();
    this.listener = null;
    for (const session of this.sessions) session.leave();
  }
}
