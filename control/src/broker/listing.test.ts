// Lists of leases: in pages that a socket takes, complete, and in words that the client's version has.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encode, PAGE_BYTES, type ListedLease } from "../protocol/messages.js";
import { page } from "./listing.js";

/** What a socket's buffer takes at least, bytes (net.core.wmem_default is 212,992). */
const BUFFER = 200_000;

function lease(at: number, change: Partial<ListedLease> = {}): ListedLease {
  const id = `lease-${(0xffff_ffff - at).toString(16).padStart(8, "0")}`;
  // Several within a millisecond.
  const since = new Date(1_700_000_000_000 + Math.floor(at / 3)).toISOString();
  return {
    ...{ id, since, state: "granted", device: "eth0", flows: ["udp dst port 53"], mechanism: "port" },
    ...{ transmit: "own", pass: false, uid: 1, pid: 2, memory: 4096 },
    ...change,
  };
}

function pages(all: readonly ListedLease[], version = 2): ListedLease[][] {
  const found: ListedLease[][] = [];
  let after: string | undefined = "";
  while (after !== undefined) {
    const { leases, next } = page(all, after, version);
    expect(
      encode({ type: "leases", request: 1, leases, ...(next === undefined ? {} : { next }) }).length,
    ).toBeLessThan(BUFFER);
    found.push([...leases]);
    after = next;
  }
  return found;
}

describe("a list of leases", () => {
  it("is one page where it is short, the empty one too", () => {
    expect(pages([])).toEqual([[]]);
    expect(pages([lease(0)])).toEqual([[lease(0)]]);
  });

  it("has every lease once, in the order in which they were made, whatever order they are kept in", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(5000), { maxLength: 60 }), fc.boolean(), (numbers, long) => {
        const flows = long ? Array.from({ length: 16 }, () => `udp and host ${"x".repeat(1000)}`) : ["udp"];
        const all = [...new Set(numbers)].map((at) => lease(at, { flows }));
        const listed = pages(all);
        const sorted = [...all].sort((a, b) => (`${a.since} ${a.id}` < `${b.since} ${b.id}` ? -1 : 1));
        expect(listed.flat()).toEqual(sorted);
        expect(listed.slice(0, -1).every((each) => each.length > 0)).toBe(true);
      }),
      { numRuns: 200 },
    );
    const many = Array.from({ length: 4000 }, (_, at) => lease(at));
    expect(pages(many).flat()).toHaveLength(4000);
    expect(pages(many).length).toBeGreaterThan((4000 * 200) / PAGE_BYTES / 2);
  });

  it("leaves out none that stays, while others come and go between two pages", () => {
    const many = Array.from({ length: 2000 }, (_, at) => lease(at));
    const first = page(many, "", 2);
    const rest = many.filter((each, at) => !first.leases.includes(each) && at % 2 === 0);
    const seen: ListedLease[] = [];
    let after = first.next;
    while (after !== undefined) {
      const { leases, next } = page([...rest, lease(9000)], after, 2);
      seen.push(...leases);
      after = next;
    }
    expect(seen.map(({ id }) => id).sort()).toEqual([...rest, lease(9000)].map(({ id }) => id).sort());
  });

  it("calls a foreign lease a port where the client has no other word", () => {
    const all = [lease(0, { mechanism: "foreign" }), lease(1, { mechanism: "queue" })];
    expect(
      pages(all)
        .flat()
        .map(({ mechanism }) => mechanism)
        .sort(),
    ).toEqual(["foreign", "queue"]);
    expect(
      pages(all, 1)
        .flat()
        .map(({ mechanism }) => mechanism)
        .sort(),
    ).toEqual(["port", "queue"]);
  });
});
