// Who has the signals while a session begins; a program stands in place of QEMU, and what a boot needs is made up.
import { beforeEach, expect, it, vi } from "vitest";
import type { Say } from "./cache.js";
import type { BootOptions } from "./guest.js";
import { DEFAULT_MACHINE } from "./machine.js";
import { runInGuest, type Stopper } from "./session.js";

const log: string[] = [];

vi.mock("./provision.js", () => ({
  provision: (_: string, say: Say, thorough: boolean): Promise<BootOptions> => {
    log.push(thorough ? "all of the cache is read" : "the cache is looked at");
    if (thorough) say("root: made again");
    return Promise.resolve({
      qemu: ["sh", "-c", "kill -SEGV $$", "sh"],
      files: { root: "/dev/null", kernel: "/dev/null" },
      packProject: () => Promise.resolve(),
    });
  },
}));

/** Notes when signals are taken over and given back. */
function stop(): Stopper {
  log.push("signals: ours");
  let ours = true;
  const dispose = (): void => {
    if (ours) log.push("signals: given back");
    ours = false;
  };
  return { signal: new AbortController().signal, reason: undefined, dispose };
}

beforeEach(() => void (log.length = 0));

it("signals are ours while QEMU runs, and end the process while the cache is read or made again", async () => {
  const run = runInGuest(DEFAULT_MACHINE, ["true"], { say: () => undefined, stop });
  await expect(run).rejects.toMatchObject({ code: "E_GUEST" });
  expect(log).toEqual([
    "the cache is looked at",
    "signals: ours",
    "signals: given back",
    "all of the cache is read",
    "signals: ours",
    "signals: given back",
  ]);
});
