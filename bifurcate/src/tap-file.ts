// The pcapng file that a port's frames are written to, when it cannot be written.

import { BifurcateError, errnoOf, messageOf } from "@bifurcate/control/errors";

/** What the addon was doing when it refused: its errors carry the call and the arguments. */
function isAbout(file: string, thrown: unknown): boolean {
  const { call, args } = thrown as { call?: unknown; args?: unknown };
  if (call === "open") return args === `path=${file}`;
  return call === "write" && args === "the head of a pcapng file";
}

/** What a device that was to write to `file` was refused for. */
function refusal(file: string | undefined, thrown: unknown): unknown {
  if (file === undefined || errnoOf(thrown) === null || !isAbout(file, thrown)) return thrown;
  return new BifurcateError("E_OUTPUT", {
    what: `write the capture file ${file} (tap, --tap)`,
    why: messageOf(thrown),
    cause: thrown,
  });
}

/** Opens a device that writes to `file`. @throws E_OUTPUT when it is the file that fails. */
export function withTapFile<T>(file: string | undefined, open: () => T): T {
  try {
    return open();
  } catch (thrown) {
    throw refusal(file, thrown);
  }
}

/** As withTapFile, of a device that takes its time. @throws E_OUTPUT when it is the file that fails. */
export async function whenTapFile<T>(file: string | undefined, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (thrown) {
    throw refusal(file, thrown);
  }
}
