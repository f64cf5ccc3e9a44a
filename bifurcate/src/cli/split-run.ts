// Runs a split from its beginning to its end: opens it, and runs the action.

import { readAction, runAction } from "./action-run.js";
import { splitOptions } from "./card-flags.js";
import type { Streams } from "./io.js";
import { askToConfirm, runPorts } from "./run-ports.js";
import type { SplitCommand } from "./split-flags.js";
import { introduceSplit } from "./split-output.js";

/**
 * Runs a split until its time is over, a signal comes or the handler fails. The settings of the card are as they
 * were when it returns or throws.
 */
export async function runSplit(request: SplitCommand, streams: Streams): Promise<void> {
  const { device, flows, netns, json, seconds, confirmSeconds } = request;
  await runPorts({ json, seconds, read: readAction }, streams, async (session) => {
    const { tap, metadata, via, transmit, pass } = request;
    const options = { ...splitOptions(request, session.warn), tap, metadata, via, transmit, pass };
    const port = session.keep(await session.api.split(device, options));
    session.show((output, warnings) => {
      const { id, path, bypasses } = port;
      introduceSplit(output, { id, device, netns, flows, path, warnings, bypasses });
      if (!json) streams.out("  Ctrl-C ends it and puts everything back\n");
    });
    if (confirmSeconds !== null) askToConfirm([port], confirmSeconds, streams, json);
    await runAction(session, port, request);
  });
}
