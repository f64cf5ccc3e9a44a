// `npm run demo [-- --seconds N] [--json]`: what bifurcate does, on a card made for the purpose.

import { parseArgs } from "node:util";
import { BifurcateError, exitStatus, wrapError } from "@bifurcate/control/errors";
import { runDemo } from "./demo.js";
import { Screen } from "./screen.js";

const HELP = `npm run demo [-- --seconds N] [--json]

  --seconds N   how long traffic runs; 10 when left out
  --json        the last line is one JSON object; everything else goes to stderr
`;

function readArguments(): { seconds: number; json: boolean; help: boolean } {
  const options = {
    seconds: { type: "string" },
    json: { type: "boolean" },
    help: { type: "boolean" },
  } as const;
  try {
    const { values } = parseArgs({ options });
    const seconds = Number(values.seconds ?? "10");
    if (!(seconds > 0 && seconds <= 86_400))
      throw new Error(`--seconds ${values.seconds} is no number of seconds`);
    return { seconds, json: values.json === true, help: values.help === true };
  } catch (error) {
    throw new BifurcateError("E_USAGE", {
      what: "run the demo",
      why: error instanceof Error ? error.message : String(error),
      next: "See npm run demo -- --help.",
    });
  }
}

async function main(): Promise<number> {
  const { seconds, json, help } = readArguments();
  if (help) {
    process.stdout.write(HELP);
    return 0;
  }
  const stream = json ? process.stderr : process.stdout;
  const screen = new Screen((text) => void stream.write(text), stream.isTTY === true);
  const stop = new AbortController();
  // On a terminal Ctrl-C reaches the programs too; each of them then ends in good order by itself.
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => stop.abort());
  const result = await runDemo(seconds, screen, stop.signal);
  if (json) process.stdout.write(`${JSON.stringify(result)}\n`);
  const { user, kernel, restored } = result;
  const answered =
    user.sent > 0 && user.answered === user.sent && kernel.sent > 0 && kernel.answered === kernel.sent;
  return answered && restored ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (thrown) {
  const error = wrapError(thrown, "run the demo");
  process.stderr.write(`${error.render()}\n`);
  process.exitCode = exitStatus(error);
}
