// What people read: tables and rates, as exact text.
import { describe, expect, it } from "vitest";
import type { Counters } from "../../native.js";
import { rateLine, summary } from "./rates.js";
import { byteRate, grouped, renderTable } from "./table.js";

const none: Counters = {
  received: 0,
  receivedBytes: 0,
  sent: 0,
  sentBytes: 0,
  dropped: 0,
  passed: 0,
  noFrames: 0,
  ringFull: 0,
  invalidDescriptor: 0,
  tooLong: 0,
  handlerInvalid: 0,
  kept: 0,
  deviceError: 0,
  tapLost: 0,
};

describe("tables", () => {
  it("align, numbers to the right, without blanks at the ends of lines", () => {
    const text = renderTable(
      [{ title: "name" }, { title: "n", right: true }, { title: "x" }],
      [["a", "12345", ""]],
    );
    expect(text).toBe("name      n  x\na     12345\n");
  });

  it("numbers are grouped, bytes have units", () => {
    expect([0, 999, 1000, 1234567].map(grouped)).toEqual(["0", "999", "1,000", "1,234,567"]);
    expect([0, 999, 1500, 3_600_000, 999_600, 2.5e12].map(byteRate)).toEqual([
      "0 B/s",
      "999 B/s",
      "1.5 kB/s",
      "3.6 MB/s",
      "1.0 MB/s",
      "2500 GB/s",
    ]);
  });
});

describe("rates", () => {
  it("are differences over the time between, losses are totals", () => {
    const before = { ...none, received: 100, noFrames: 2 };
    const now = { ...none, received: 1100, receivedBytes: 64_000, sent: 500, noFrames: 5 };
    expect(rateLine(7.2, 2, before, now)).toBe(
      "7 s  received 500/s (32.0 kB/s)  sent 250/s  dropped 0/s  passed 0/s  lost: no frames 5",
    );
  });

  it("the summary has a row a queue, named by the card's own numbers", () => {
    const one = { ...none, received: 1000, receivedBytes: 60_000, dropped: 1000 };
    const text = summary(2, { ...one, received: 2000, ringFull: 3 }, [
      ["queue 1", one],
      ["queue 3", { ...one, ringFull: 3 }],
    ]);
    expect(text.split("\n")).toEqual([
      "in 2.0 s  received   bytes  sent  dropped  passed  lost",
      "queue 1      1,000  60,000     0    1,000       0  none",
      "queue 3      1,000  60,000     0    1,000       0  ring full 3",
      "all          2,000  60,000     0    1,000       0  ring full 3",
      "",
    ]);
  });
});
