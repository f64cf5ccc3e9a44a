// One frame as an object: the convenient form of a batch, `for (const frame of batch)`.

import type { Batch } from "./batch.js";

/** The current frame of a batch. One object serves the whole batch: what it says is true until the next step. */
export class Frame {
  private readonly batch: Batch;

  /** @param batch The batch whose current frame this is. */
  constructor(batch: Batch) {
    this.batch = batch;
  }

  /** The frame's bytes from its Ethernet header on, in place: what is written there is sent. Allocates. */
  get bytes(): Uint8Array {
    const { view } = this.batch;
    return new Uint8Array(view.buffer, this.batch.at, this.batch.size);
  }

  /** Its length in bytes. */
  get length(): number {
    return this.batch.size;
  }

  /** The card's receive hash; undefined where the driver gives none. */
  get hash(): number | undefined {
    return this.batch.hash;
  }

  /** The VLAN tag that the card took off; undefined where it took none. */
  get vlan(): number | undefined {
    return this.batch.vlan;
  }

  /** When the card received it, in nanoseconds; undefined where the driver does not say. */
  get timestamp(): bigint | undefined {
    return this.batch.timestamp;
  }

  /** Sends it: see `Batch.send`. */
  send(length?: number, port?: number): void {
    this.batch.send(length, port);
  }

  /** Gives it to the kernel's stack. */
  pass(): void {
    this.batch.pass();
  }

  /** Keeps it after the handler has returned: see `Batch.keep`. */
  keep(): number {
    return this.batch.keep();
  }

  /** Drops it: the default. */
  drop(): void {
    this.batch.drop();
  }
}

/** Steps a batch frame by frame, and allocates nothing for it. */
export class FrameIterator implements Iterator<Frame> {
  private readonly batch: Batch;
  private readonly step: { done: boolean; value: Frame };

  /** @param batch The batch to step through. */
  constructor(batch: Batch) {
    this.batch = batch;
    this.step = { done: false, value: new Frame(batch) };
  }

  /** The next frame, in the same result object each time. */
  next(): IteratorResult<Frame> {
    this.step.done = !this.batch.next();
    return this.step as IteratorResult<Frame>;
  }
}
