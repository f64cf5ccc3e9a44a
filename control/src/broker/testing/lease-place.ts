// For tests: leases over a model of the kernel, with a folder of their own for what brokers write down.
import { mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BifurcateError } from "../../errors.js";
import type { LeaseRequest } from "../../protocol/messages.js";
import type { AuditEntry } from "../audit.js";
import { Leases } from "../leases.js";
import type { Client, Places } from "../live.js";
import { parsePolicy } from "../policy.js";
import type { FakeBroker } from "./fake-broker.js";

/** A user's process that lives: this one. Its leases lie in no namespace of its own. */
export const CLIENT: Client = {
  uid: 1000,
  gids: [],
  pid: process.pid,
  netns: () => {
    throw new Error("no lease here lies in its client's namespace");
  },
};

/** A request, but for what it is about. */
export const REQUEST: Omit<LeaseRequest, "device" | "flows" | "mechanism" | "transmit"> = {
  pass: false,
  queues: 1,
  frames: 256,
  frameSize: 2048,
  ringSize: 64,
  zeroCopy: "prefer",
  busyPoll: false,
  pages: "auto",
};

/** A flow of eth0 by queues of its own, which may not send. */
export const QUEUE_REQUEST: LeaseRequest = {
  ...REQUEST,
  device: "eth0",
  flows: ["udp dst port 53"],
  mechanism: "queue",
  transmit: "none",
};

/** Users and groups by their numbers alone. */
export const NAMES = { user: Number, group: Number };

/** Where brokers come one after another. */
export class LeasePlace {
  readonly folder = mkdtempSync(join(tmpdir(), "bf-leases-"));
  readonly places: Places = {
    state: join(this.folder, "leases"),
    bpffs: join(this.folder, "bpf"),
    splits: join(this.folder, "splits"),
  };
  /** What brokers wrote into the audit log. */
  readonly log: AuditEntry[] = [];
  readonly audit = { write: (entry: AuditEntry) => void this.log.push(entry), close: () => undefined };

  /** The leases of a broker that begins. */
  start({ kernel, netns, machine }: FakeBroker, policy: string): Leases {
    const parsed = parsePolicy(policy, "policy", NAMES);
    return new Leases(kernel, netns, machine, this.places, parsed, this.audit);
  }

  /** The files of the leases' records. */
  records(): string[] {
    return readdirSync(this.places.state);
  }

  /** From now on no record can be written, until the returned function is called. */
  full(): () => void {
    const { state } = this.places;
    renameSync(state, `${state}.away`);
    // A file, where the folder is to be: a full disk cannot be made here.
    writeFileSync(state, "");
    return () => {
      rmSync(state);
      renameSync(`${state}.away`, state);
    };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The code of the error that something ended with, why, and what to do next; nothing when it did not. */
export function refusal(work: () => unknown): string {
  try {
    work();
  } catch (thrown) {
    return wordsOf(thrown);
  }
  return "";
}

/** As `refusal`, of what takes its time. */
export async function refusalOf(work: Promise<unknown>): Promise<string> {
  return work.then(() => "", wordsOf);
}

function wordsOf(thrown: unknown): string {
  if (thrown instanceof BifurcateError) return `${thrown.code}: ${thrown.why} ${thrown.next}`;
  throw thrown;
}
