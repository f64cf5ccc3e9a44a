// The values of options: what is taken, and that what is not names the option and what it would take.
import { BifurcateError } from "@bifurcate/control";
import { describe, expect, it } from "vitest";
import {
  parseAction,
  parseChoice,
  parseCores,
  parseDuration,
  parseMetadata,
  parseQueues,
} from "./options.js";

function failure(work: () => unknown): BifurcateError {
  try {
    work();
  } catch (error) {
    if (error instanceof BifurcateError) return error;
  }
  throw new Error("no BifurcateError was thrown");
}

describe("lists", () => {
  it("takes numbers and ranges: queues in order, processors as they were given", () => {
    expect(parseQueues("3")).toEqual([3]);
    expect(parseQueues("4,0, 2-3")).toEqual([0, 2, 3, 4]);
    expect(parseCores("1,0,0")).toEqual([1, 0, 0]);
  });

  it("refuses a queue twice, as split() does", () => {
    expect(failure(() => parseQueues("0,0")).why).toContain("the queue 0 is listed twice");
    expect(failure(() => parseQueues("2,0-3")).why).toContain("the queue 2 is listed twice");
  });

  for (const text of ["", "a", "-1", "3-1", "1,,2", "1.5", "99999"]) {
    it(`refuses '${text}'`, () => {
      expect(failure(() => parseQueues(text))).toMatchObject({ code: "E_BAD_OPTION", status: 2 });
    });
  }
});

describe("times", () => {
  it("takes units, and seconds without one", () => {
    expect(
      ["30s", "500ms", "2m", "1h", "1.5", " 7 "].map((text) => parseDuration("--seconds", text)),
    ).toEqual([30, 0.5, 120, 3600, 1.5, 7]);
  });

  for (const text of ["", "0", "-3", "3x", "31000000", "s", "1e3"]) {
    it(`refuses '${text}' and names the option`, () => {
      const error = failure(() => parseDuration("--confirm", text));
      expect(error.code).toBe("E_BAD_OPTION");
      expect(error.message).toContain(`--confirm '${text}'`);
    });
  }
});

describe("actions", () => {
  it("takes each of them", () => {
    expect(parseAction("reflect")).toEqual({ kind: "reflect" });
    expect(parseAction("forward=eth1")).toEqual({ kind: "forward", to: "eth1" });
    expect(parseAction("run=a=b.ts")).toEqual({ kind: "run", file: "a=b.ts" });
  });

  for (const text of ["", "run", "run=", "forward=", "drop=1", "reflects", "=x"]) {
    it(`refuses '${text}' and lists them all`, () => {
      const error = failure(() => parseAction(text));
      expect(error.code).toBe("E_BAD_OPTION");
      expect(error.next).toContain("drop, count, reflect, forward=TO, run=FILE");
    });
  }
});

describe("metadata", () => {
  it("takes some or all", () => {
    expect(parseMetadata("vlan,hash")).toEqual(["hash", "vlan"]);
    expect(parseMetadata("all")).toEqual(["hash", "timestamp", "vlan"]);
  });

  for (const text of ["", "hash,", "HASH", "all,hash"]) {
    it(`refuses '${text}' and lists them`, () => {
      const error = failure(() => parseMetadata(text));
      expect(error).toMatchObject({ code: "E_BAD_OPTION", status: 2 });
      expect(error.next).toContain("hash,timestamp,vlan");
    });
  }
});

it("a choice that is none lists the choices", () => {
  const parse = parseChoice("--backend", ["auto", "af_xdp"]);
  expect(parse("af_xdp")).toBe("af_xdp");
  expect(failure(() => parse("AF_XDP")).next).toContain("auto, af_xdp");
});
