// The machine that the options of `bifurcate lab guest` describe; nothing boots here.
import { describe, expect, it } from "vitest";
import type { Machine } from "@bifurcate/lab/guest/machine";
import { makeProgram } from "../program.js";
import { machineOf } from "./lab-guest.js";

async function machine(...words: string[]): Promise<Machine> {
  const streams = { out: () => undefined, err: () => undefined, live: false };
  const program = await makeProgram(streams, ["lab"]);
  const find = (from: typeof program, name: string): typeof program =>
    from.commands.find((command) => command.name() === name)!;
  const guest = find(find(program, "lab"), "guest").action(() => undefined);
  await program.parseAsync(["lab", "guest", ...words], { from: "user" });
  return machineOf(guest.opts());
}

describe("--vhost-user", () => {
  it("may be given several times: each is one more NIC", async () => {
    expect((await machine("--nics", "igb", "--vhost-user", "/run/a", "--vhost-user", "/run/b")).nics).toEqual(
      [{ model: "igb" }, { model: "virtio", vhostUser: "/run/a" }, { model: "virtio", vhostUser: "/run/b" }],
    );
    expect((await machine()).nics).toEqual([]);
  });

  it("is refused where the guest has no room for all of them, or the path is missing", async () => {
    const seven = ["--nics", "igb,igb,igb,igb,igb,igb,igb"];
    expect((await machine(...seven, "--vhost-user", "/run/a")).nics).toHaveLength(8);
    await expect(machine(...seven, "--vhost-user", "/run/a", "--vhost-user", "/run/b")).rejects.toMatchObject(
      {
        code: "E_BAD_OPTION",
        why: "they are 9, and there is room for 8 NICs",
      },
    );
    await expect(machine("--vhost-user=")).rejects.toMatchObject({ code: "E_BAD_OPTION" });
  });
});
