// A command that runs in a guest, with the streams that a child process has.

import { PassThrough, Writable } from "node:stream";
import type { BifurcateError } from "@bifurcate/control/errors";
import type { OutputName } from "./channel.js";

/** How to run a command in the guest. */
export interface RunOptions {
  /** Folder to run in; the project's own when left out. */
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** What it reads on stdin, for `run`. */
  readonly input?: string;
  /** Seconds until the guest is ended as hung; no limit for `start` when left out. */
  readonly limit?: number;
}

/** What a process tells its agent. */
type Said =
  | { readonly stdin: string }
  | { readonly end: true }
  | { readonly signal: NodeJS.Signals }
  | { readonly took: OutputName };

/** Bytes of one message: base64 of it stays well below what the port buffers. */
const CHUNK = 32768;

/** A command in the guest. */
export class GuestProcess {
  readonly stdout = new PassThrough();
  readonly stderr = new PassThrough();
  readonly stdin: Writable;
  /** Its exit status: 128 + N after signal N, 127 when there is no such program. Rejects when the guest dies. */
  readonly ended: Promise<number>;
  private resolve!: (status: number) => void;
  private reject!: (error: BifurcateError) => void;
  /** Called when the guest has taken the chunk of stdin that is on its way. */
  private taken: (() => void) | null = null;
  private over = false;

  constructor(private readonly say: (said: Said) => void) {
    this.ended = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.ended.catch(() => undefined); // who waits for it still sees the error
    this.stdin = new Writable({
      write: (bytes: Buffer, _encoding, done) => {
        // One chunk at a time: whoever writes faster than the command reads is made to wait.
        const next = (at: number): void => {
          if (at >= bytes.length || this.over) return done();
          this.taken = () => next(at + CHUNK);
          say({ stdin: bytes.subarray(at, at + CHUNK).toString("base64") });
        };
        next(0);
      },
      final: (done) => {
        say({ end: true });
        done();
      },
    });
  }

  /** Sends a signal to the command and all that it started. */
  kill(signal: NodeJS.Signals = "SIGTERM"): void {
    this.say({ signal });
  }

  /** @internal The guest has taken a chunk of stdin. */
  took(): void {
    const { taken } = this;
    this.taken = null;
    taken?.();
  }

  /** @internal A chunk of a stream came; the next one may when it is read. */
  heard(name: OutputName, bytes: Buffer): void {
    this[name].write(bytes, () => {
      if (!this.over) this.say({ took: name });
    });
  }

  /** @internal */
  finish(status: number): void {
    this.closeStreams();
    // Whoever reads the streams has all of them before the status.
    setImmediate(() => this.resolve(status));
  }

  /** @internal */
  fail(error: BifurcateError): void {
    this.closeStreams();
    this.reject(error);
  }

  private closeStreams(): void {
    this.over = true;
    this.took();
    for (const stream of [this.stdout, this.stderr]) stream.end();
  }
}
