// For tests: builds an example of one of the crates.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** Builds it; gives the path of the program. */
export function buildExample(crate: string, example: string, ...more: readonly string[]): string {
  const args = ["build", "--locked", "-p", crate, "--example", example, ...more];
  const json = execFileSync("cargo", [...args, "--message-format", "json"], {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 2 ** 26,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const built = json
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => (JSON.parse(line) as { executable?: string | null }).executable);
  return built.find((each): each is string => typeof each === "string")!;
}
