// What a split has to do on every kernel that the guest can run, with each of its drivers: the same tests, another boot.
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { BOOT_LIMIT } from "@bifurcate/lab/guest/shared";
import { LIFE, pings } from "./guest-split.js";
import { bringUp, takeDown, type Wire } from "@bifurcate/lab/guest/wire";
import { endAll, errorOf, RunningSplit } from "@bifurcate/lab/harness";

/** What a driver does with XDP on a kernel; the guest has one NIC of each, in this order. */
export interface Expected {
  readonly nic: string;
  readonly driver: string;
  /** Where the split's program runs. */
  readonly xdp: "driver" | "generic";
}

/** What a split of a NIC is refused on a kernel. */
export interface Refused {
  readonly nic: string;
  readonly words: readonly string[];
  readonly code: string;
  readonly why: RegExp;
}

/** The tests of one kernel. */
export function describeSplit(
  title: string,
  release: RegExp,
  boot: () => Promise<Guest>,
  expected: readonly Expected[],
  refusals: readonly Refused[],
): void {
  describe(title, () => {
    let guest: Guest;
    let wire: Wire | undefined;

    beforeAll(async () => {
      guest = await boot();
    }, BOOT_LIMIT);

    afterEach(async () => {
      await endAll();
      if (wire !== undefined) await takeDown(guest, wire);
      wire = undefined;
    });

    it("runs the kernel that it should", async () => {
      expect((await guest.run(["uname", "-r"])).stdout).toMatch(release);
    });

    it("what the kernel or the driver cannot do is refused in so many words", async () => {
      for (const { nic, words, code, why } of refusals) {
        wire = await bringUp(guest, nic);
        const ended = await guest.run(["bifurcate", "split", nic, ...words, "--json"]);
        const error = errorOf(ended);
        expect([ended.status, error.code]).toEqual([expect.any(Number), code]);
        expect(error.why).toMatch(why);
        await takeDown(guest, wire);
        wire = undefined;
      }
    });

    for (const { nic, driver, xdp } of expected) {
      it(`${driver}: DNS is answered by a split (${xdp}), ping by the kernel, and the card is as it was`, async () => {
        wire = await bringUp(guest, nic);
        const { far } = wire;
        const settings = async (): Promise<string> =>
          (
            await guest.run([
              "sh",
              "-c",
              `ethtool -l ${nic}; ethtool -x ${nic}; ethtool -k ${nic}; ethtool -n ${nic}; ip link show ${nic}`,
            ])
          ).stdout;
        const before = await settings();
        const flags = ["--flow", "udp dst port 53", "--do", "run=examples/dns.ts", "--json"];
        const split = new RunningSplit(guest.start(["bifurcate", "split", nic, ...flags], { limit: LIFE }));
        const { path } = await split.event("split");
        expect(path).toMatchObject({ backend: "af_xdp", xdp });
        const ask = ["ip", "netns", "exec", far.netns];
        for (const server of [wire.nic.v4, wire.nic.v6]) {
          const { stdout } = await guest.run([
            ...ask,
            "dig",
            "+short",
            "+tries=40",
            "+time=2",
            `@${server}`,
            "v4only.bifurcate.test",
          ]);
          // It says every query that timed out first: the handler's worker starts slowly in software emulation.
          expect(stdout.trim().split("\n").at(-1)).toBe("192.0.2.4");
        }
        expect(await pings(guest, wire)).toBe(3);
        const ended = await split.end("SIGINT");
        expect([ended.status, ended.stderr]).toEqual([0, expect.any(String)]);
        // igb closes and reopens the device when the program goes: the link is back a moment later.
        await vi.waitFor(async () => expect(await settings()).toBe(before), {
          timeout: 60_000,
          interval: 1_000,
        });
      });
    }
  });
}
