// A lease that is being made, lives or ends, with what the broker watches of it.
import type { ProcessIdentity } from "../facts/processes.js";
import type { LeaseRecord } from "../lease/record.js";
import type { GrantedLease } from "../protocol/messages.js";
import type { Outsider } from "./foreign.js";
import type { CardLoan, Descriptor, KeptMemory, ProcessHandle } from "./machine.js";
import type { Asker } from "./policy.js";
import type { CardLook } from "./whole-card.js";

/** What a grant gives: the words and the descriptors, in the order that PROTOCOL.md says. */
export interface Granting {
  readonly lease: GrantedLease;
  readonly descriptors: readonly Descriptor[];
  /** To be called when the message has been sent, or could not be: our copies are closed. */
  readonly sent: (ok: boolean) => void;
}

/** A lease with what the broker watches of it. */
export interface Live {
  record: LeaseRecord;
  process: ProcessHandle | null;
  /** Of the next look: whether an adopted one is held, or one that drains is free. */
  timer: NodeJS.Timeout | null;
  /** The card's program knows it. */
  steered: boolean;
  /** It is being made away from the event loop: when it ends meanwhile, what was made is taken away afterwards. */
  making?: boolean;
  /** Of a card that is leased whole, since this broker lent it. */
  loan?: CardLoan;
  /** A look at it that was begun, where that takes its time. */
  look?: CardLook;
  /** Its memory, likewise. */
  kept?: KeptMemory;
  /** What was last said of an end that could not be brought about. */
  told?: string;
  /** What was last said of a record that could not be written. */
  unwritten?: string;
  /** Its client was ended, since it held what is to be free. */
  ended?: boolean;
}

/** Whose a lease is to be. */
export interface Owner {
  readonly identity: ProcessIdentity;
  readonly uid: number;
}

/** Who asks for a lease, as the kernel says it. */
export interface Client extends Asker, Outsider {
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
