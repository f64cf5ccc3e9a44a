// The other side of child.ts, in the processes themselves: settings from the command line, answers to the parent.

import { wrapError } from "@bifurcate/control/errors";
import type { Answer } from "./child.js";

/** The settings that the parent gave. */
export function settings<T>(): T {
  return JSON.parse(process.argv[2] ?? "null") as T;
}

/**
 * Opens, says that it is ready with what `open` gave to tell, answers each request, and when the parent is gone or has
 * had enough, closes and ends.
 */
export async function serve<Request, Opened extends { readonly tells: unknown; close(): unknown }>(
  open: () => Promise<Opened>,
  answer: (request: Request, opened: Opened) => Promise<unknown> | unknown,
): Promise<void> {
  const say = (message: Answer): void => void process.send?.(message);
  const failed = (thrown: unknown): void => {
    const { code, why } = wrapError(thrown, "measure");
    say({ failed: { code, why } });
  };
  // The parent, not a terminal, says when it is over: Ctrl-C reaches the whole group.
  process.on("SIGINT", () => undefined);
  let opened: Opened;
  try {
    opened = await open();
  } catch (thrown) {
    failed(thrown);
    process.disconnect();
    return;
  }
  process.on("message", (request: Request) => {
    void Promise.resolve()
      .then(() => answer(request, opened))
      .then((value) => say({ value }))
      .catch(failed);
  });
  process.once("disconnect", () => {
    void Promise.resolve(opened.close()).finally(() => process.exit(0));
  });
  say({ value: opened.tells });
}
