// The entry of the command line: runs it on the process's own streams and sets the exit status.

import { processStreams } from "./io.js";
import { runCommandLine } from "./program.js";

// Whoever reads our output may leave early (`| head`): that ends the output, not the clean-up.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

// Failed, should it end without a word.
process.exitCode = 1;
void runCommandLine(process.argv.slice(2), processStreams).then((status) => {
  process.exitCode = status;
});
