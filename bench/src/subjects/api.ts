// One form of handler over a batch in plain memory: how many frames a second JavaScript itself gets through.
//
//   node bench/dist/subjects/api.js raw|cursor|frames|bytes fresh|detached SECONDS
//
// The work of every form: check Ethernet, IPv4 and UDP, swap both addresses, send. `detached` detaches an
// ArrayBuffer elsewhere in the isolate first, as closing another port does.
import { Batch } from "bifurcate";
import {
  BLOCK_WORDS,
  HEADER_WORDS,
  ROW_LENGTH,
  ROW_OFFSET,
  ROW_VERDICT,
  ROW_WORDS,
  VERDICT_SEND,
} from "bifurcate/layout";

const [form = "cursor", state = "fresh", length = "1"] = process.argv.slice(2);
const frames = 32;
const frameSize = 2048;
const pool = new ArrayBuffer(4096 * frameSize);
const block = new ArrayBuffer(4 * BLOCK_WORDS);
const words = new Int32Array(block);
const view = new DataView(pool);

for (let at = 0; at < pool.byteLength; at += frameSize) {
  view.setUint16(at + 256 + 12, 0x0800);
  view.setUint8(at + 256 + 14, 0x45);
  view.setUint8(at + 256 + 23, 17);
}

/** What Rust does between two turns: the rows name the frames of the next batch. */
function fill(turn: number): void {
  for (let n = 0; n < frames; n += 1) {
    const row = HEADER_WORDS + n * ROW_WORDS;
    words[row + ROW_OFFSET] = ((turn * frames + n) % 1024) * frameSize + 256;
    words[row + ROW_LENGTH] = 60;
    words[row + ROW_VERDICT] = 0;
  }
}

function swap(at: number): boolean {
  if (
    view.getUint16(at + 12) !== 0x0800 ||
    view.getUint8(at + 14) !== 0x45 ||
    view.getUint8(at + 23) !== 17
  ) {
    return false;
  }
  const first = view.getUint32(at, true);
  const middle = view.getUint32(at + 4, true);
  const last = view.getUint32(at + 8, true);
  view.setUint32(at, (middle >>> 16) | (last << 16), true);
  view.setUint32(at + 4, (last >>> 16) | (first << 16), true);
  view.setUint32(at + 8, (first >>> 16) | (middle << 16), true);
  const source = view.getUint32(at + 26, true);
  view.setUint32(at + 26, view.getUint32(at + 30, true), true);
  view.setUint32(at + 30, source, true);
  return true;
}

const batch = new Batch(pool, block);

const forms: Record<string, () => void> = {
  raw: () => {
    const end = HEADER_WORDS + frames * ROW_WORDS;
    for (let row = HEADER_WORDS; row < end; row += ROW_WORDS) {
      if (swap(words[row + ROW_OFFSET]!)) words[row + ROW_VERDICT] = VERDICT_SEND;
    }
  },
  cursor: () => {
    batch.begin(frames);
    while (batch.next()) if (swap(batch.at)) batch.send();
  },
  frames: () => {
    batch.begin(frames);
    for (const frame of batch) if (swap(batch.at)) frame.send();
  },
  bytes: () => {
    batch.begin(frames);
    for (const frame of batch) {
      const { bytes } = frame;
      if (bytes[12] !== 8 || bytes[13] !== 0 || bytes[14] !== 0x45 || bytes[23] !== 17) continue;
      for (let n = 0; n < 6; n += 1) [bytes[n], bytes[n + 6]] = [bytes[n + 6]!, bytes[n]!];
      for (let n = 26; n < 30; n += 1) [bytes[n], bytes[n + 4]] = [bytes[n + 4]!, bytes[n]!];
      frame.send();
    }
  },
};

const work = forms[form];
if (work === undefined) throw new Error(`no form '${form}'; there are ${Object.keys(forms).join(", ")}`);
for (let turn = 0; turn < 200_000; turn += 1) {
  fill(turn);
  work();
}
if (state === "detached") {
  const other = new ArrayBuffer(1 << 20);
  structuredClone(other, { transfer: [other] });
}
const began = process.hrtime.bigint();
let turns = 0;
while (Number(process.hrtime.bigint() - began) < Number(length) * 1e9) {
  for (let n = 0; n < 1000; n += 1) {
    fill(turns + n);
    work();
  }
  turns += 1000;
}
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
process.stdout.write(`${JSON.stringify({ packets: turns * frames, seconds })}\n`);
