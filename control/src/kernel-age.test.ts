// What a lease's client is told on a kernel that maps no rings of a bound socket: the version, not an errno.
import { describe, expect, it } from "vitest";
import { wrapError } from "./errors.js";
import { missingFacility } from "./kernel-age.js";

function refusal(call: string, code: string, args: string): Error {
  return Object.assign(new Error(`${call} ${args}: ${code}`), { call, code, args });
}

describe("a kernel that is too old for a lease's client", () => {
  // The words of datapath/src/device/af_xdp/lease.rs.
  const args = "of a socket that is bound: kernel 6.4 or newer";

  it("is named with the version that it lacks", () => {
    const { code, why, next } = wrapError(refusal("mmap(AF_XDP ring)", "EOPNOTSUPP", args), "open a lease");
    expect(code).toBe("E_KERNEL_TOO_OLD");
    expect(`${why} ${next}`).toContain("6.4");
  });

  it("is not blamed for another refusal", () => {
    expect(missingFacility(refusal("mmap(AF_XDP ring)", "ENOMEM", "rx"))).toBeNull();
    expect(missingFacility(refusal("mmap(memfd)", "EOPNOTSUPP", args))).toBeNull();
  });
});
