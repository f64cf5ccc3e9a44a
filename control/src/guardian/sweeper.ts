// Takes away the record of a split that has nothing to undo yet, or never, when the split's owner is killed.
import { spawn } from "node:child_process";

/**
 * Starts a shell in a session of its own that waits for the end of this process and then removes `file`: all that a
 * guardian would have to do, without a Node of its own. Where there is no shell the record stays, with nothing in it to
 * undo, until the next split of the card.
 * @returns Ends it: the owner removes the record itself, or a guardian watches from now on.
 */
export function launchSweeper(file: string): () => void {
  const child = spawn("/bin/sh", ["-c", 'read -r _; rm -f -- "$1"', "sh", file], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
    cwd: "/",
  });
  child.on("error", () => undefined);
  child.stdin.on("error", () => undefined);
  child.unref();
  if ("unref" in child.stdin && typeof child.stdin.unref === "function") child.stdin.unref();
  return () => void child.kill("SIGKILL");
}
