// PROTOCOL.md against the parser: the fields of what is granted, and the bounds that end a connection.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { BadMessage } from "./fields.js";
import { parseBrokerMessage, parseClientMessage, type GrantedLease } from "./messages.js";

const PAGE = readFileSync(new URL("PROTOCOL.md", import.meta.url), "utf8");
const GRANTED: GrantedLease = {
  id: "lease-00000001",
  device: "0000:01:00.0",
  mechanism: "vfio",
  port: "0000:01:00.0",
  portQueues: [0],
  mtu: 0,
  mac: "",
  queues: 1,
  transmit: "raw",
  pass: false,
  frames: 64,
  frameSize: 2048,
  jumboFrames: 0,
  ringSize: 64,
  filled: 0,
  zeroCopy: true,
  needWakeup: false,
  multiBuffer: false,
  busyPoll: false,
  leftToCard: false,
  xdp: "driver",
  bypasses: [],
  notes: [],
  card: { iova: 2 ** 32, ringsAt: 2 ** 21, ringBytes: 2 ** 21 },
};

/** The rows of a table, by the sentence before it. */
function table(before: string): { readonly field: string; readonly type: string }[] {
  const [rows] = PAGE.slice(PAGE.indexOf(before) + before.length)
    .trimStart()
    .split("\n\n", 1);
  return rows!
    .split("\n")
    .slice(2)
    .map((line) => line.split("|"))
    .map(([, field, type]) => ({ field: field!.trim().replaceAll("`", ""), type: type!.trim() }));
}

/** Whether a broker may say so. */
function granted(change: object): boolean {
  const message = { type: "granted", request: 1, lease: { ...GRANTED, ...change } };
  return taken(() => parseBrokerMessage(Buffer.from(JSON.stringify(message))));
}

/** Whether a client may say so. */
function said(message: object): boolean {
  return taken(() => parseClientMessage(Buffer.from(JSON.stringify(message))));
}

function taken(parse: () => unknown): boolean {
  try {
    parse();
    return true;
  } catch (thrown) {
    if (thrown instanceof BadMessage) return false;
    throw thrown;
  }
}

const number = (text: string): number => Number(text.replaceAll(",", ""));

describe("the table of what is granted", () => {
  const rows = table("The fields of the object `lease` of `granted`:");

  it("has every field", () => {
    expect(granted({})).toBe(true);
    expect(rows.map(({ field }) => field)).toEqual(Object.keys(GRANTED));
  });

  it.each(rows)("$field is $type", ({ field, type }) => {
    const value = GRANTED[field as keyof GrantedLease];
    const [, least, most] = /^(\d+) to ([\d,]+)/.exec(type) ?? [];
    const [, longest] = /^text, at most (\d+)$/.exec(type) ?? [];
    const [, elements] = /^at most (\d+) (texts|numbers)/.exec(type) ?? [];
    const words = [...type.matchAll(/`(\w+)`/g)].map(([, word]) => word!);
    const may = (each: unknown): boolean => granted({ [field]: each });
    if (longest !== undefined) {
      expect([may("x".repeat(Number(longest))), may("x".repeat(Number(longest) + 1))]).toEqual([true, false]);
      expect([may("\x1f"), may("\x7f"), may(7)]).toEqual([false, false, false]);
    } else if (least !== undefined) {
      const bounds = [number(least), number(most!)];
      expect(bounds.map(may)).toEqual([true, true]);
      expect([bounds[0]! - 1, bounds[1]! + 1, 2 * bounds[1]!, 1.5, `${least}`].map(may)).not.toContain(true);
      if (type.endsWith("a power of two")) expect(may(96)).toBe(false);
    } else if (elements !== undefined) {
      const many = (count: number): unknown[] => Array.from({ length: count }, () => 0);
      expect([may(many(Number(elements))), may(many(Number(elements) + 1)), may("")]).toEqual([
        true,
        false,
        false,
      ]);
    } else if (words.length > 0) {
      expect(words.map(may)).not.toContain(false);
      expect([may("other"), may(true)]).toEqual([false, false]);
    } else if (type === "boolean") {
      expect([may(true), may(false), may("prefer"), may(1)]).toEqual([true, true, false, false]);
    } else if (type === "2048, 4096") {
      expect([may(2048), may(4096), may(3000)]).toEqual([true, true, false]);
    } else {
      expect(type).toBe("object");
      expect([may(value), may([]), may(null)]).toEqual([true, false, false]);
    }
  });
});

describe("the bounds that the page names beside", () => {
  const hello = { type: "hello", versions: [3], name: "" };

  it("are those of a hello", () => {
    expect(PAGE).toContain(
      "`versions` has at most 16 whole numbers, each above 0; `name` at most 64 characters",
    );
    const versions = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);
    const counts = [16, 17].map((count) => said({ ...hello, versions: versions(count) }));
    expect(counts).toEqual([true, false]);
    for (const version of [0, -1, 1.5, "3"]) expect(said({ ...hello, versions: [version] })).toBe(false);
    expect([64, 65].map((count) => said({ ...hello, name: "ä".repeat(count) }))).toEqual([true, false]);
    expect(said({ type: "hello", versions: [3] })).toBe(true);
  });

  it("are those of a lease's id and of a page's end", () => {
    expect(PAGE).toContain("the id of a lease at most 64");
    for (const type of ["return", "resume", "release"]) {
      const ids = ["x".repeat(64), "x".repeat(65), "x\n", "x\x7f"];
      const may = ids.map((lease) => said({ type, request: 1, lease }));
      expect(may, type).toEqual([true, false, false, false]);
    }
    expect(PAGE).toContain("a text of at most 128 characters");
    const ends = [128, 129].map((count) => said({ type: "list", request: 1, after: "x".repeat(count) }));
    expect(ends).toEqual([true, false]);
  });
});

describe("the states of a lease in a list", () => {
  it("are those that the page names", () => {
    const line = /^A lease in a list has a `state`: .*$/m.exec(PAGE)![0];
    const lease = {
      ...{ id: "lease-00000001", device: "eth0", flows: [], mechanism: "port", transmit: "own", pass: false },
      ...{ uid: 1, pid: 1, memory: 0, since: "" },
    };
    const may = (state: string): boolean =>
      taken(() =>
        parseBrokerMessage(
          Buffer.from(JSON.stringify({ type: "leases", request: 1, leases: [{ ...lease, state }] })),
        ),
      );
    for (const state of ["reserved", "granted", "revoked", "draining", "free"]) {
      expect(line).toContain(`\`${state}\``);
      expect(may(state), state).toBe(true);
    }
    expect(may("lost")).toBe(false);
  });
});
