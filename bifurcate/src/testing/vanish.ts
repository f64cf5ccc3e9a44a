// A process of its own with a driver whose frame memory vanishes under its handler; it says how that ended, and shows
// that it lives.

import { readdirSync, readlinkSync } from "node:fs";
import { open, type BifurcateError, type Port } from "bifurcate";
import { handle } from "./vanish-handler.js";
import { roundTrip } from "./frames.js";

/** What the process reports. */
export interface Vanished {
  readonly pages: string;
  /** How the run of the port ended: a coded error. */
  readonly code: string;
  /** A port of the same process that has nothing to do with it, afterwards. */
  readonly other: { readonly sent: number; readonly returned: number };
}

const FRAMES = 1024;
const [spec, otherSpec, file] = process.argv.slice(2) as [string, string, string];

/** Descriptors of pools of this process. */
function pools(): string[] {
  const folder = `/proc/${process.pid}/fd`;
  return readdirSync(folder)
    .map((fd) => `${folder}/${fd}`)
    .filter((fd) => {
      try {
        return readlinkSync(fd).includes("bifurcate-umem");
      } catch {
        return false; // the descriptor that reads the folder
      }
    });
}

/**
 * Sends one frame, and another only when that was lost: a device that has frames to copy would touch the hole first, and
 * fill it with the pages that it freed.
 */
async function feed(to: Port, signal: AbortSignal): Promise<void> {
  const source = await open("loopback:frames=256");
  let next = Date.now() + 300;
  await source.run(
    (batch) => {
      while (batch.next()) {
        if (Date.now() < next) continue;
        next = Date.now() + 60_000;
        for (let at = 0; at < 60; at += 1) batch.view.setUint8(batch.at + at, 1);
        batch.send(60, 1);
      }
    },
    { outputs: [to], signal },
  );
  await source.close();
}

const other = await open(otherSpec);
const before = new Set(pools());
const port = await open(`${spec},frames=${FRAMES},jumboFrames=0`);
// Ordinary pages come back as zeros, without a fault: nothing would end.
if (port.path.obtained.pages !== "huge") throw new Error("the pool has no huge pages");
const [pool] = pools().filter((fd) => !before.has(fd));
process.env["VANISH_FILE"] = pool!;
process.env["VANISH_LENGTH"] = String(FRAMES * 2048);
const end = new AbortController();
const feeding = feed(port, end.signal).catch(() => undefined);
// In this thread, or in a worker of its own.
const work = file === "" ? port.run(handle, { outputs: [] }) : port.run({ file }, { outputs: [] });
const code = await work.then(
  () => "ended",
  (error: BifurcateError) => error.code,
);
end.abort();
await feeding;
const pages = port.path.obtained.pages;
await port.close();
process.send!({ pages, code, other: await roundTrip(other, 500) } satisfies Vanished, () => process.exit(0));
