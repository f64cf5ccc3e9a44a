// The cursor and the frame object, over a block as the native side fills it.

import { beforeEach, describe, expect, it } from "vitest";
import { Batch } from "./batch.js";
import * as layout from "./layout.js";

const FRAME = 2048;
let pool: ArrayBuffer;
let words: Int32Array;
let batch: Batch;

/** The row of a frame, as the handler left it. */
function row(index: number): Int32Array {
  const at = layout.HEADER_WORDS + index * layout.ROW_WORDS;
  return words.subarray(at, at + layout.ROW_WORDS);
}

/** Fills the block as a turn does. */
function arrive(lengths: number[]): void {
  lengths.forEach((length, index) => {
    row(index).set([index * FRAME + 256, length, layout.VERDICT_DROP, 0, 0, -1, 0, 0]);
    new Uint8Array(pool, index * FRAME + 256, length).fill(index + 1);
  });
  words[layout.HEADER_COUNT] = lengths.length;
  batch.begin(lengths.length);
}

beforeEach(() => {
  pool = new ArrayBuffer(layout.BATCH_MAX * FRAME);
  const block = new ArrayBuffer(layout.BLOCK_WORDS * 4);
  words = new Int32Array(block);
  batch = new Batch(pool, block);
});

describe("the cursor", () => {
  it("visits every frame once, where it lies and as long as it is", () => {
    arrive([60, 61, 1514]);
    expect(batch.count).toBe(3);
    const seen: number[][] = [];
    while (batch.next()) seen.push([batch.at, batch.size, batch.view.getUint8(batch.at + batch.size - 1)]);
    expect(seen).toEqual([
      [256, 60, 1],
      [FRAME + 256, 61, 2],
      [2 * FRAME + 256, 1514, 3],
    ]);
    expect(batch.next()).toBe(false);
  });

  it("visits a full batch", () => {
    arrive(Array.from({ length: layout.BATCH_MAX }, () => 60));
    let frames = 0;
    while (batch.next()) frames++;
    expect(frames).toBe(layout.BATCH_MAX);
  });

  it("finds nothing in an empty batch", () => {
    arrive([]);
    expect(batch.next()).toBe(false);
    expect(batch.count).toBe(0);
  });

  it("writes each verdict into the frame's own row, and drops what nobody spoke for", () => {
    arrive([60, 60, 60, 60, 60, 60]);
    batch.next();
    batch.send();
    batch.next();
    batch.send(90, 2);
    batch.next();
    batch.pass();
    batch.next();
    expect(batch.keep()).toBe(3 * FRAME + 256);
    batch.next();
    batch.send();
    batch.drop();
    batch.next();
    expect([0, 1, 2, 3, 4, 5].map((index) => [...row(index).subarray(1, 4)])).toEqual([
      [60, layout.VERDICT_SEND, 0],
      [90, layout.VERDICT_SEND, 2],
      [60, layout.VERDICT_PASS, 0],
      [60, layout.VERDICT_KEEP, 0],
      [60, layout.VERDICT_DROP, 0],
      [60, layout.VERDICT_DROP, 0],
    ]);
  });

  it("touches no frame and no count before the first frame and after the last", () => {
    arrive([60]);
    const before = [...row(0)];
    batch.send(1, 1);
    expect(batch.next()).toBe(true);
    expect(batch.next()).toBe(false);
    batch.pass();
    expect([...row(0)]).toEqual(before);
    expect(words[layout.HEADER_COUNT]).toBe(1);
  });

  it("takes every verdict back when a handler failed", () => {
    arrive([60, 60]);
    while (batch.next()) batch.send();
    batch.dropAll();
    expect([row(0)[2], row(1)[2]]).toEqual([layout.VERDICT_DROP, layout.VERDICT_DROP]);
  });

  it("says undefined for what the driver does not give, and the value for what it does", () => {
    arrive([60, 60]);
    row(1).set([-2, 0xa00 | 7, -1, 1], 4);
    batch.next();
    expect([batch.hash, batch.vlan, batch.timestamp]).toEqual([undefined, undefined, undefined]);
    batch.next();
    expect([batch.hash, batch.vlan, batch.timestamp]).toEqual([0xfffffffe, 0xa07, 0x1ffffffffn]);
  });

  it("starts anew with each turn", () => {
    arrive([60, 60]);
    batch.next();
    arrive([70]);
    expect(batch.next()).toBe(true);
    expect(batch.size).toBe(70);
    expect(batch.next()).toBe(false);
  });
});

describe("the frame object", () => {
  it("shows each frame's bytes in place and takes verdicts", () => {
    arrive([60, 61, 62]);
    const seen: number[] = [];
    for (const frame of batch) {
      const { bytes } = frame;
      seen.push(bytes.length, frame.length, bytes[0]!);
      bytes[0] = 0xee;
      if (frame.length === 61) frame.send(30);
      if (frame.length === 62) frame.pass();
    }
    expect(seen).toEqual([60, 60, 1, 61, 61, 2, 62, 62, 3]);
    expect([row(0)[2], row(1)[2], row(2)[2], row(1)[1]]).toEqual([
      layout.VERDICT_DROP,
      layout.VERDICT_SEND,
      layout.VERDICT_PASS,
      30,
    ]);
    expect(batch.view.getUint8(FRAME + 256)).toBe(0xee);
  });

  it("may be left early and started again in the next turn", () => {
    arrive([60, 60]);
    for (const frame of batch) {
      frame.send();
      break;
    }
    arrive([61]);
    expect([...batch].length).toBe(1);
  });
});
