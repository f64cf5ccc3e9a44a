// Ends frames that a handler kept: writes the release rows of the queue's block.

import {
  BATCH_MAX,
  HEADER_RELEASES,
  RELEASE_WORD,
  ROW_LENGTH,
  ROW_OFFSET,
  ROW_PORT,
  ROW_VERDICT,
  ROW_WORDS,
} from "./layout.js";

/** The release rows of one queue. More than 256 in one turn wait for the next. */
export class KeptFrames {
  private readonly words: Int32Array;
  private readonly wake: () => void;
  private readonly waiting: (readonly [key: number, verdict: number, length: number, port: number])[] = [];

  /**
   * @param block The queue's shared block.
   * @param wake Called when there is something to release: a queue that sleeps has to turn for it.
   */
  constructor(block: ArrayBuffer, wake: () => void) {
    this.words = new Int32Array(block);
    this.wake = wake;
  }

  /** Ends a kept frame at the next turn. */
  end(key: number, verdict: number, length: number, port: number): void {
    if (this.words[HEADER_RELEASES] === BATCH_MAX) this.waiting.push([key, verdict, length, port]);
    else this.write(key, verdict, length, port);
    this.wake();
  }

  /** Whether the next turn has something to release. */
  get pending(): boolean {
    this.refill();
    return this.words[HEADER_RELEASES] !== 0;
  }

  private refill(): void {
    while (this.waiting.length > 0 && this.words[HEADER_RELEASES]! < BATCH_MAX) {
      this.write(...this.waiting.shift()!);
    }
  }

  private write(key: number, verdict: number, length: number, port: number): void {
    const words = this.words;
    const used = words[HEADER_RELEASES]!;
    const row = RELEASE_WORD + used * ROW_WORDS;
    words[row + ROW_OFFSET] = whole(key);
    words[row + ROW_LENGTH] = whole(length);
    words[row + ROW_VERDICT] = verdict;
    words[row + ROW_PORT] = whole(port);
    words[HEADER_RELEASES] = used + 1;
  }
}

/** What does not fit a word would be stored as its low 32 bits, which may be right for another frame; -1 never is. */
function whole(number: number): number {
  return number === (number | 0) ? number : -1;
}
