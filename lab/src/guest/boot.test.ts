// A guest whose timer stops while it boots is ended at once and booted again, a few times.
import { describe, expect, it } from "vitest";
import { BifurcateError } from "@bifurcate/control/errors";
import { Guest } from "./guest.js";
import { DEFAULT_MACHINE } from "./machine.js";
import { bootSteadily } from "./session.js";

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

const boot = (words: string, limit: number): Promise<Guest> =>
  Guest.boot(DEFAULT_MACHINE, {
    qemu: saying(words),
    files: { root: "/dev/null", kernel: "/dev/null" },
    packProject: () => Promise.resolve(),
    limit,
  });

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
