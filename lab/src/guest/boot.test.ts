// Boots that fail, with a program in place of QEMU: which are tried again, and whether the cache is read again before.
import { describe, expect, it } from "vitest";
import { BifurcateError } from "@bifurcate/control/errors";
import { Guest, type BootOptions } from "./guest.js";
import { DEFAULT_MACHINE } from "./machine.js";
import { bootMending, bootSteadily } from "./session.js";

/** In place of QEMU: says that on the guest's console and then nothing. */
const saying = (words: string): string[] => [
  "sh",
  "-c",
  `for word; do case $word in file,id=console,path=*) echo "${words}" > "\${word##*path=}";; esac; done; exec sleep 1000`,
  "sh",
];

/** Linux 6.1 on an emulated machine whose processors were starved. */
const STALL =
  "rcu: rcu_preempt kthread timer wakeup didn't happen for 5255 jiffies! g-1135 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x402";

const bootOptions = (qemu: readonly string[], limit = 50): BootOptions => ({
  qemu,
  files: { root: "/dev/null", kernel: "/dev/null" },
  packProject: () => Promise.resolve(),
  limit,
});

const boot = (words: string, limit: number): Promise<Guest> =>
  Guest.boot(DEFAULT_MACHINE, bootOptions(saying(words), limit));

describe("a guest whose timer stops while it boots", () => {
  it("is ended at once, with the console", async () => {
    await expect(boot(STALL, 50)).rejects.toMatchObject({
      code: "E_GUEST",
      why: expect.stringMatching(/its timer stopped while it booted[\s\S]*timer wakeup/) as string,
      data: { timerStopped: true },
    });
  });

  it("is told from one that is silent for another reason", async () => {
    await expect(boot("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", 3)).rejects.toMatchObject({
      why: expect.stringMatching(/took no command within 3 s/) as string,
      data: { timerStopped: false },
    });
  });

  const stopped = new BifurcateError("E_GUEST", {
    what: "boot",
    why: "stopped",
    data: { timerStopped: true },
  });

  it("is booted again, which is said", async () => {
    const said: string[] = [];
    const up = {} as Guest;
    const results = [() => Promise.reject(stopped), () => Promise.resolve(up)];
    expect(await bootSteadily(() => results.shift()!(), said.push.bind(said) as (text: string) => void)).toBe(
      up,
    );
    expect(said).toEqual([expect.stringContaining("booting it again")]);
  });

  it("is given up when that happens each time, and at once for any other reason", async () => {
    let boots = 0;
    const failing = (error: BifurcateError) => () => (boots++, Promise.reject(error));
    await expect(bootSteadily(failing(stopped), () => undefined)).rejects.toBe(stopped);
    expect(boots).toBe(3);
    boots = 0;
    const other = new BifurcateError("E_GUEST", { what: "boot", why: "panicked" });
    await expect(bootSteadily(failing(other), () => undefined)).rejects.toBe(other);
    expect(boots).toBe(1);
  });
});

describe("the cache, after a boot that failed", () => {
  const shell = (script: string): string[] => ["sh", "-c", script, "sh"];

  /** Boots; gives how often all of the cache was read, and the error. */
  async function reads(
    qemu: readonly string[],
    change: Partial<BootOptions> = {},
  ): Promise<{ read: number; why: string }> {
    let read = 0;
    const provided = (_: unknown, thorough: boolean): Promise<BootOptions> => {
      if (thorough) read += 1;
      return Promise.resolve(bootOptions(qemu));
    };
    const once = (options: BootOptions): Promise<Guest> =>
      Guest.boot(DEFAULT_MACHINE, { ...options, ...change });
    const error = await bootMending(provided, once, () => undefined).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "E_GUEST" });
    return { read, why: (error as BifurcateError).why };
  }

  it.each([
    ["the guest is silent", "exec sleep 1000", "took no command", { limit: 2 }],
    ["QEMU crashes", "kill -SEGV $$", "QEMU ended by SIGSEGV", {}],
    ["QEMU's loader cannot load it", "echo libz.so.1: file too short >&2; exit 127", "file too short", {}],
    ["the guest ends by itself", "exit 0", "QEMU ended with status 0", {}],
  ])("is read again where %s", async (_, script, why, change) => {
    const said = expect.stringContaining(why) as string;
    expect(await reads(shell(script), change)).toEqual({ read: 1, why: said });
  });

  it("is not read again where QEMU, or what starts it, says why itself", async () => {
    const qemu = shell("echo unshare: unshare failed >&2; exit 1");
    expect(await reads(qemu)).toEqual({ read: 0, why: expect.stringContaining("unshare failed") as string });
  });

  it("is not read again where the boot is broken off", async () => {
    const controller = new AbortController();
    // By when QEMU runs: it is started without a wait once the project is packed.
    const packProject = (): Promise<void> => Promise.resolve(void setTimeout(() => controller.abort(), 50));
    const { read, why } = await reads(shell("exec sleep 1000"), { packProject, signal: controller.signal });
    expect([read, why]).toEqual([0, expect.stringContaining("broken off")]);
  });

  it("is made again where it was broken, and then the boot is tried once more", async () => {
    const up = {} as Guest;
    const suspect = new BifurcateError("E_GUEST", { what: "boot", why: "", data: { cacheSuspect: true } });
    const boots = [() => Promise.reject(suspect), () => Promise.resolve(up)];
    const provided = (say: (text: string) => void, thorough: boolean): Promise<BootOptions> => {
      if (thorough) say("root: made again");
      return Promise.resolve(bootOptions([]));
    };
    expect(
      await bootMending(
        provided,
        () => boots.shift()!(),
        () => undefined,
      ),
    ).toBe(up);
  });
});
