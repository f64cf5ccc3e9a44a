// Where a report goes: to stdout, or into a file that --output names.

import { writeFileSync } from "node:fs";
import { BifurcateError, messageOf } from "@bifurcate/control/errors";
import type { Streams } from "./io.js";

/**
 * Gives the function that a report goes to. A file is made at once, so that one that cannot be written is known before
 * the work is done.
 * @throws E_OUTPUT
 */
export function reportTo(streams: Streams, file: string | undefined): (text: string) => void {
  if (file === undefined) return streams.out;
  const write = (text: string): void => {
    try {
      writeFileSync(file, text);
    } catch (thrown) {
      throw new BifurcateError("E_OUTPUT", {
        what: `write the report to ${file}`,
        why: messageOf(thrown),
        cause: thrown,
        data: { file },
      });
    }
  };
  write("");
  return write;
}
