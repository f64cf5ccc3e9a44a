// The native subjects: example programs of the datapath crate, built in release mode.
import path from "node:path";
import { lastJson, output } from "./child.js";

/** Builds the examples and gives the folder that holds them. */
export async function buildExamples(root: string, progress: (text: string) => void): Promise<string> {
  progress("cargo build --release -p bifurcate-datapath --examples");
  const text = await output(
    "cargo",
    [
      "build",
      "--release",
      "-p",
      "bifurcate-datapath",
      "--examples",
      "--message-format=json-render-diagnostics",
    ],
    { cwd: root },
  );
  const artifact = text
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as { executable?: string | null; target?: { kind: string[] } })
    .find((message) => message.executable && message.target?.kind.includes("example"));
  if (artifact?.executable == null) throw new Error("cargo built no example");
  return path.dirname(artifact.executable);
}

/** Runs a program that ends with one JSON line, inside a namespace if one is named, pinned to a core. */
export async function runJson<T>(
  words: readonly string[],
  cwd: string,
): Promise<{ result: T; command: string }> {
  const [command, ...args] = words;
  const result = lastJson<T>(await output(command!, args, { cwd }));
  return {
    result,
    command: words.map((word) => (word.startsWith(cwd) ? path.relative(cwd, word) : word)).join(" "),
  };
}
