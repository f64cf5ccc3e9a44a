// The package's version, as its package.json has it.

import { readFileSync } from "node:fs";

/** e.g. "0.1.0". */
export function version(): string {
  const read = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  return read.version;
}
