// The frames of one turn, as a handler sees them: a cursor over the batch.

import { FrameIterator, type Frame } from "./frame.js";
import {
  BATCH_MAX,
  BLOCK_WORDS,
  HEADER_WORDS,
  NO_ROW,
  ROW_HASH,
  ROW_LENGTH,
  ROW_OFFSET,
  ROW_PORT,
  ROW_TIME_HIGH,
  ROW_TIME_LOW,
  ROW_VERDICT,
  ROW_VLAN,
  ROW_WORDS,
  VERDICT_DROP,
  VERDICT_KEEP,
  VERDICT_PASS,
  VERDICT_SEND,
} from "./layout.js";

/**
 * Received frames, up to 32. The batch is its own cursor: `next()` steps to the next frame, `at` and `size` say
 * where it lies in `view`, and one verdict ends it. A frame without a verdict is dropped.
 *
 * ```ts
 * while (batch.next()) {
 *   const length = answer(batch.view, batch.at, batch.size);
 *   if (length > 0) batch.send(length);
 * }
 * ```
 *
 * A batch belongs to the handler until the handler returns. Outside a frame (before the first `next()`, after it
 * said false) there is no current frame, and verdicts are without effect. Nothing here allocates, except where
 * said. How fast each form is: `npm run bench -- api`.
 */
export class Batch implements Iterable<Frame> {
  /** The whole frame pool; every frame of every batch of this queue lies in it. */
  readonly view: DataView;
  // Plain fields, and `at` and `size` read where they stand: fields written by next() cost 1.3 times as much.
  private readonly words: Int32Array;
  private readonly frames: FrameIterator;
  private row = NO_ROW;
  private end = HEADER_WORDS;

  /**
   * @param pool The frame pool.
   * @param block The queue's shared block, laid out as layout.ts says.
   */
  constructor(pool: ArrayBuffer, block: ArrayBuffer) {
    this.view = new DataView(pool);
    this.words = new Int32Array(block, 0, BLOCK_WORDS);
    this.frames = new FrameIterator(this);
  }

  /** Number of frames in the batch. */
  get count(): number {
    return (this.end - HEADER_WORDS) / ROW_WORDS;
  }

  /** Offset in `view` of the current frame's first byte: its Ethernet header. */
  get at(): number {
    return this.words[this.row + ROW_OFFSET]!;
  }

  /** Length of the current frame in bytes, without the checksum at its end; `send(length)` changes it. */
  get size(): number {
    return this.words[this.row + ROW_LENGTH]!;
  }

  /** Steps to the next frame, and says whether there was one. */
  next(): boolean {
    const row = this.row + ROW_WORDS;
    this.row = row;
    return row < this.end;
  }

  /**
   * Sends the current frame.
   * @param length Its length in bytes, `size` when left out. One that the frame has no room for is counted
   *   (`handlerInvalid`) and the frame dropped.
   * @param port Out of which port: 0, when left out, is the one that it came in by; n is the n-th of the run's `outputs`.
   */
  send(length?: number, port?: number): void {
    const words = this.words;
    const row = this.row;
    words[row + ROW_VERDICT] = VERDICT_SEND;
    // Another number than the one stored would else be sent as what its low 32 bits say; -1 is never right.
    if (length !== undefined) words[row + ROW_LENGTH] = length === (length | 0) ? length : -1;
    if (port !== undefined) words[row + ROW_PORT] = port === (port | 0) ? port : -1;
  }

  /** Gives the current frame to the kernel, where it appears as if it had just arrived on the interface. */
  pass(): void {
    this.words[this.row + ROW_VERDICT] = VERDICT_PASS;
  }

  /**
   * Keeps the current frame after the handler has returned. It is the handler's until `context.release(key)` or
   * `context.send(key)`; one that is never given back is missing from the pool, and named when the pool runs dry.
   * @returns The frame's key: its offset in `view`.
   */
  keep(): number {
    const row = this.row;
    this.words[row + ROW_VERDICT] = VERDICT_KEEP;
    return this.words[row + ROW_OFFSET]!;
  }

  /** Drops the current frame. That is the default; this takes another verdict back. */
  drop(): void {
    this.words[this.row + ROW_VERDICT] = VERDICT_DROP;
  }

  /** The card's receive hash of the current frame; undefined where the driver gives none. */
  get hash(): number | undefined {
    const hash = this.words[this.row + ROW_HASH]!;
    return hash === 0 ? undefined : hash >>> 0;
  }

  /** The VLAN tag (TCI, 16 bits) that the card took off the current frame; undefined where it took none. */
  get vlan(): number | undefined {
    const vlan = this.words[this.row + ROW_VLAN]!;
    return vlan < 0 ? undefined : vlan;
  }

  /** When the card received the current frame, in nanoseconds; undefined where the driver does not say. Allocates. */
  get timestamp(): bigint | undefined {
    const low = this.words[this.row + ROW_TIME_LOW]!;
    const high = this.words[this.row + ROW_TIME_HIGH]!;
    return low === 0 && high === 0 ? undefined : (BigInt(high) << 32n) | BigInt(low >>> 0);
  }

  /**
   * The convenient form: `for (const frame of batch)`. The frame object is one and the same each time; its `bytes`
   * is a new Uint8Array for every frame that asks for it.
   */
  [Symbol.iterator](): Iterator<Frame> {
    return this.frames;
  }

  /** @internal Stands the cursor before the first of `count` frames. */
  begin(count: number): void {
    this.row = NO_ROW;
    this.end = HEADER_WORDS + Math.min(count, BATCH_MAX) * ROW_WORDS;
  }

  /** @internal Every frame of the batch gets the verdict drop, whatever a handler said of it before it failed. */
  dropAll(): void {
    for (let row = HEADER_WORDS; row < this.end; row += ROW_WORDS)
      this.words[row + ROW_VERDICT] = VERDICT_DROP;
  }
}
