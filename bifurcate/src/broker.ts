// The command bifurcated: the broker of the control path, with this package's version.

import { bifurcated } from "@bifurcate/control/broker/main";
import { version } from "./cli/version.js";

process.title = "bifurcated";
void bifurcated(process.argv.slice(2), version()).then((status) => {
  if (status === 0) process.exitCode = 0;
  // A start that failed late may have begun to watch what keeps a process alive.
  else if (status !== null) process.exit(status);
});
