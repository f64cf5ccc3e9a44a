// Makes one file of peer.ts, beside the API that is built: Node runs no TypeScript everywhere.

import path from "node:path";
import { fileURLToPath } from "node:url";
import { buildSync } from "esbuild";

const source = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

/** @returns The file, in the folder. */
export function bundlePeer(folder: string): string {
  const outfile = path.join(folder, "peer.mjs");
  const api = source("../../dist/index.js");
  buildSync({
    entryPoints: [source("./peer.ts")],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    alias: { bifurcate: api },
    external: [api],
  });
  return outfile;
}
