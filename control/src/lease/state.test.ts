// The state machine of a lease, walked at random: no way leads past the kernel, and every way ends.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isFree, next, steers, type LeaseEvent, type LeaseState } from "./state.js";

const EVENTS: readonly LeaseEvent[] = [
  "reserve",
  "grant",
  "fail",
  "return",
  "death",
  "release",
  "loss",
  "held",
  "gone",
];

function walk(events: readonly LeaseEvent[]): LeaseState[] {
  const states: LeaseState[] = ["free"];
  for (const event of events) states.push(next(states.at(-1)!, event) ?? states.at(-1)!);
  return states;
}

describe("a lease", () => {
  it("goes the whole way", () => {
    expect(walk(["reserve", "grant", "death", "held", "gone"])).toEqual([
      "free",
      "reserved",
      "granted",
      "revoked",
      "draining",
      "free",
    ]);
  });

  it("never steers again after it was revoked, unless it was free in between", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...EVENTS), { maxLength: 40 }), (events) => {
        const states = walk(events);
        for (const [at, state] of states.entries()) {
          if (state !== "revoked" && state !== "draining") continue;
          const rest = states.slice(at);
          const steering = rest.findIndex(steers);
          if (steering !== -1) expect(rest.slice(0, steering).some(isFree)).toBe(true);
        }
      }),
    );
  });

  it("can be ended from every state but free", () => {
    for (const state of ["reserved", "granted", "revoked", "draining"] as const) {
      const seen = new Set<LeaseState>([state]);
      for (let grew = true; grew;) {
        const found = [...seen].flatMap((each) =>
          EVENTS.filter((event) => event !== "grant" && event !== "reserve").flatMap(
            (event) => next(each, event) ?? [],
          ),
        );
        grew = found.some((each) => !seen.has(each));
        for (const each of found) seen.add(each);
      }
      expect(seen.has("free")).toBe(true);
    }
  });

  it("takes no event that does not belong to its state", () => {
    expect(next("free", "grant")).toBeNull();
    expect(next("draining", "return")).toBeNull();
    expect(next("granted", "gone")).toBeNull();
  });
});
