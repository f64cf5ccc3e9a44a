// The way back into the kernel: an error where it was asked for by name, a note where not, left alone where not wanted.
import { describe, expect, it } from "vitest";
import type { Plan } from "@bifurcate/control";
import type { NativePort } from "../native.js";
import { openPass, type SplitPath } from "./path.js";

const plan = { device: { name: "eth0" } } as Plan;

/** A path whose way back ends as given. */
function pathWith(enablePass: () => { reason?: string }): SplitPath {
  return { native: { enablePass } as unknown as NativePort, notes: [] as string[] } as unknown as SplitPath;
}

const refuses = (): never => {
  throw Object.assign(new Error("open /dev/net/tun: no such file"), { code: "ENOENT" });
};

describe("pass", () => {
  it("asked for and not to be had: E_NO_PASS, with the cause and the card", () => {
    const path = pathWith(refuses);
    expect(() => openPass(path, plan, { flows: ["udp"], pass: true }, false)).toThrow(
      expect.objectContaining({
        code: "E_NO_PASS",
        what: "open a way back into the kernel for eth0",
        why: expect.stringContaining("/dev/net/tun") as string,
      }) as Error,
    );
    expect(path.notes).toEqual([]);
  });

  it("not asked for and not to be had: the port opens, and its notes say what the verdict does", () => {
    const path = pathWith(refuses);
    openPass(path, plan, { flows: ["udp"] }, false);
    expect(path.notes).toEqual(["the verdict pass drops: open /dev/net/tun: no such file"]);
  });

  it("slow where there is no TAP: said", () => {
    const path = pathWith(() => ({ reason: "EPERM" }));
    openPass(path, plan, { flows: ["udp"], pass: true }, false);
    expect(path.notes).toEqual(["pass goes frame by frame, slowly: there is no TAP (EPERM)"]);
  });

  it("not wanted: not opened", () => {
    const path = pathWith(refuses);
    openPass(path, plan, { flows: ["udp"], pass: false }, false);
    expect(path.notes).toEqual([]);
  });
});
