// The command bifurcated: the broker of the control path, with this package's version.

import { bifurcated } from "@bifurcate/control/broker/main";
import { version } from "./cli/version.js";

process.title = "bifurcated";
void bifurcated(process.argv.slice(2), version()).then((status) => {
  if (status !== null) process.exitCode = status;
});
