// The guardian's process: `node main.js STATE_DIRECTORY SPLIT`, its stdin a pipe from the owner.
import { createInterface } from "node:readline";
import { messageOf } from "../errors.js";
import { nativeKernel } from "../native.js";
import { guard, openJournal } from "./guard.js";

async function main(directory: string, id: string): Promise<0 | 1> {
  const kernel = nativeKernel();
  const opened = openJournal(kernel, directory, id);
  if (opened === null) return 0;
  let confirmed = false;
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => (confirmed ||= line === "confirmed"));
  const pipeClosed = new Promise<void>((resolve) => lines.once("close", resolve));
  process.stdin.on("error", () => lines.close());
  process.stdout.on("error", () => undefined); // the owner is dead: nobody to tell
  return guard({
    kernel,
    directory,
    id,
    netns: opened.netns,
    say: (word) => void process.stdout.write(`${word}\n`),
    pipeClosed,
    confirmed: () => confirmed,
  });
}

const [directory, id] = process.argv.slice(2);
if (directory === undefined || id === undefined) {
  process.exitCode = 2;
} else {
  process.title = "bifurcate-guardian";
  main(directory, id).then(
    (status) => process.exit(status),
    (thrown: unknown) => {
      process.stdout.write(`${messageOf(thrown).replaceAll("\n", " ")}\n`, () => process.exit(1));
    },
  );
}
