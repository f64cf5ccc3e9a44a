#!/usr/bin/env node
// Starts the compiled broker; says how to compile it where that has not been done.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const main = new URL("../dist/broker.js", import.meta.url);
if (existsSync(main)) {
  await import(main.href);
} else {
  process.stderr.write(
    `start bifurcated: ${fileURLToPath(main)} is not there, so it is not built\n` +
      "  next: run `npm run build` in the checkout\n",
  );
  process.exitCode = 77;
}
