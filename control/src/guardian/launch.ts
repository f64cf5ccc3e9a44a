// The owner's side of the guardian: starts it, waits until it watches, hears when it dies.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { BifurcateError, messageOf } from "../errors.js";
import { identify, type ProcessIdentity } from "../facts/processes.js";

/** What an owner can say to its guardian. */
export interface GuardianHandle {
  readonly identity: ProcessIdentity;
  /** The split is confirmed. */
  confirmed(): void;
  /** The owner has undone the split, or leaves the rest to the guardian: from now on its death is no news. */
  dismiss(): void;
}

export interface GuardianOptions {
  /** The state directory. */
  readonly directory: string;
  /** The split's name. */
  readonly id: string;
  /** The split was not confirmed in time. */
  readonly expired: () => void;
  /** The guardian ended although it was not dismissed. */
  readonly died: () => void;
}

/** Starts a guardian; E_GUARDIAN where it does not come up. */
export type LaunchGuardian = (options: GuardianOptions) => Promise<GuardianHandle>;

/**
 * How long a guardian may take to come up, ms. Node and the addon take about 100 on an idle machine, and more than
 * 20 seconds in a guest whose processors are emulated on a busy one. One that fails says so or ends, which is seen
 * at once: this is for one that hangs.
 */
const START_MS = 120_000;

/** The guardian's program: beside this file once built. */
function program(): string {
  const named = process.env["BIFURCATE_GUARDIAN"];
  if (named !== undefined && named !== "") return named;
  const here = import.meta.url;
  return fileURLToPath(new URL(here.endsWith(".ts") ? "../../dist/guardian/main.js" : "./main.js", here));
}

/**
 * Starts the guardian in a session of its own, so that neither Ctrl-C nor a closing terminal reaches it. Its
 * only ties to the owner are two pipes: one that ends when the owner does, one that says "ready" or "expired".
 */
export const launchGuardian: LaunchGuardian = ({ directory, id, expired, died }) =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program(), directory, id], {
      detached: true,
      stdio: ["pipe", "pipe", "ignore"],
      cwd: "/",
    });
    const failed = (why: string, cause?: unknown): void => {
      clearTimeout(timer);
      child.removeAllListeners();
      child.on("error", () => undefined);
      child.kill("SIGKILL");
      reject(new BifurcateError("E_GUARDIAN", { what: "start the guardian", why, cause }));
    };
    const timer = setTimeout(() => failed(`it did not come up within ${START_MS / 1000} s`), START_MS);
    let ready = false;
    let dismissed = false;
    child.once("error", (error) => failed(messageOf(error), error));
    child.once("exit", (code, signal) => {
      if (!ready) failed(`it ended at once (${signal ?? `status ${code}`})`);
      else if (!dismissed) died();
    });
    child.stdin.on("error", () => undefined); // it died: "exit" says so
    child.stdout.on("error", () => undefined);
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (line === "expired") return expired();
      if (line !== "ready") return failed(line);
      const identity = identify(child.pid ?? 0);
      if (identity === null) return failed("it ended at once");
      clearTimeout(timer);
      ready = true;
      // The guardian must not keep its owner from ending.
      child.unref();
      for (const stream of [child.stdin, child.stdout]) {
        if ("unref" in stream && typeof stream.unref === "function") stream.unref();
      }
      resolve({
        identity,
        confirmed: () => void child.stdin.write("confirmed\n"),
        dismiss: () => {
          dismissed = true;
          child.stdin.end();
        },
      });
    });
  });
