// What the AF_XDP and the AF_PACKET path of a split have in common.

import type { Netns as AddonNetns } from "@bifurcate/addon";
import { messageOf, wrapError } from "@bifurcate/control/errors";
import type { Attachment, Kernel } from "@bifurcate/control/kernel";
import type { RxMetadata } from "@bifurcate/control/steering/metadata";
import type { Plan } from "@bifurcate/control/steering/plan";
import type { NativePort } from "../native.js";
import { withTapFile } from "../tap-file.js";
import type { SplitOptions } from "./options.js";

export type { AddonNetns };

/**
 * Frames of 68 KiB, where packets longer than a frame of 2 KiB can arrive: a burst of 32, 8 that a thread holds back,
 * and some in the handler's hands. 3.2 MiB a queue, beside 8 MiB of ordinary frames.
 */
export const JUMBO_FRAMES_A_QUEUE = 48;

/** What a path is opened with. */
export interface PathOptions extends SplitOptions {
  /** The capture file goes on where the path before this one ended. */
  readonly tapAppend?: boolean;
}

/** What the addon is told of a capture. */
export function tapOf({ tap, tapAppend = false }: PathOptions): {
  readonly tap?: string;
  readonly tapAppend?: boolean;
  readonly show?: boolean;
} {
  return typeof tap === "string" ? { tap, tapAppend } : { show: tap === true };
}

/** Opens a device whose capture file is one of what can fail. @throws E_OUTPUT */
export function withTap<T>({ tap }: PathOptions, open: () => T): T {
  return withTapFile(typeof tap === "string" ? tap : undefined, open);
}

/** A way for a flow's frames, opened as a plan says. */
export interface SplitPath {
  /** The port, once open. */
  readonly native: NativePort | undefined;
  /** What a handler can learn of a frame, where that is other than planned. */
  readonly metadata?: RxMetadata | undefined;
  /** What could not be had. */
  readonly notes: string[];
  /** The card's queues that have a socket: the plan's, and those that came with the program. */
  readonly queues: readonly number[];
  /** Opens it: when it is done, frames arrive. */
  open(): void | Promise<void>;
  /** Attaches the program; again, when it was lost. */
  attach(): void;
  /** Whether the kernel still has the program on the card. */
  readonly attached: boolean;
  /** The flow goes back to the kernel at once. */
  detach(): void;
  /** Closes what open() made, as far as it got. */
  close(): Promise<void>;
}

/** What both paths do alike: a program's attachment brings the flow here, and its end gives the flow back. */
export abstract class AttachedPath implements SplitPath {
  native: NativePort | undefined;
  readonly notes: string[] = [];
  metadata: RxMetadata | undefined;
  protected attachment: Attachment | undefined;

  constructor(
    protected readonly kernel: Kernel,
    protected readonly netns: AddonNetns,
    protected readonly plan: Plan,
    protected readonly options: PathOptions,
  ) {}

  abstract readonly queues: readonly number[];

  abstract open(): void | Promise<void>;

  abstract attach(): void;

  get attached(): boolean {
    return this.attachment?.attached() ?? false;
  }

  detach(): void {
    this.attachment?.close();
    this.attachment = undefined;
  }

  /** The port itself has been closed before, or is closed here; a path closes its programs after that. */
  async close(): Promise<void> {
    this.detach();
    await this.native?.close(0);
  }
}

/**
 * Opens the way back into the kernel, as far as it was asked for.
 * @throws E_NO_PASS when it was asked for by name and cannot be had.
 */
export function openPass(path: SplitPath, plan: Plan, options: SplitOptions, generic: boolean): void {
  const { pass } = options;
  if (pass === false) return;
  try {
    const { reason } = path.native!.enablePass(generic);
    if (reason !== undefined)
      path.notes.push(`pass goes frame by frame, slowly: there is no TAP (${reason})`);
  } catch (thrown) {
    if (pass === true) {
      throw wrapError(thrown, `open a way back into the kernel for ${plan.device.name}`, "E_NO_PASS");
    }
    path.notes.push(`the verdict pass drops: ${messageOf(thrown)}`);
  }
}
