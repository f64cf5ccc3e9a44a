// A capture that counts: who sends how much of a flow, told each second. The kernel gets every frame afterwards.
//
//   bifurcate split eth0 --flow 'udp' --do run=examples/capture.ts
//
// To keep the frames themselves, for tcpdump or Wireshark, use --tap=FILE with any handler.

import type { Batch, Context } from "bifurcate";

/** Frames and bytes by source: an IPv4 address as a number, or the name of the rest. */
const talkers = new Map<number | string, { frames: number; bytes: number }>();
const SHOWN = 5;
/** More sources than this are counted together: a flood of forged addresses shall not fill the memory. */
const KNOWN = 10_000;
let next = Date.now() + 1000;

function sourceOf(view: DataView, at: number, size: number): number | string {
  const type = size >= 34 ? view.getUint16(at + 12) : 0;
  if (type === 0x0800) return view.getUint32(at + 26);
  return type === 0x86dd ? "IPv6" : "other";
}

function nameOf(source: number | string): string {
  if (typeof source === "string") return source;
  return [24, 16, 8, 0].map((shift) => (source >>> shift) & 255).join(".");
}

function report(queue: number): void {
  const most = [...talkers].sort(([, a], [, b]) => b.bytes - a.bytes).slice(0, SHOWN);
  for (const [source, { frames, bytes }] of most) {
    console.error(`queue ${queue}: ${nameOf(source).padEnd(15)} ${frames} frames ${bytes} bytes`);
  }
  talkers.clear();
}

/** Counts each frame and passes it on. */
export function handle(batch: Batch, context: Context): void {
  const { view } = batch;
  while (batch.next()) {
    let source = sourceOf(view, batch.at, batch.size);
    if (talkers.size >= KNOWN && !talkers.has(source)) source = "other";
    const talker = talkers.get(source);
    if (talker === undefined) talkers.set(source, { frames: 1, bytes: batch.size });
    else {
      talker.frames += 1;
      talker.bytes += batch.size;
    }
    batch.pass();
  }
  const now = Date.now();
  if (now < next) return;
  next = now + 1000;
  report(context.queue);
}

/** The last, unfinished second. */
export function stop(context: Context): void {
  report(context.queue);
}
