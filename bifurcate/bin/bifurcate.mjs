#!/usr/bin/env node
// Starts the compiled command line; says how to compile it where that has not been done.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const main = new URL("../dist/cli/main.js", import.meta.url);
if (existsSync(main)) {
  await import(main.href);
} else {
  process.stderr.write(
    `start bifurcate: ${fileURLToPath(main)} is not there, so it is not built\n` +
      "  next: run `npm run build` in the checkout\n",
  );
  process.exitCode = 77;
}
