// What the demo shows, as exact text.
import { expect, it } from "vitest";
import { Screen, type Way } from "./screen.js";
import { parseEvent } from "./split-events.js";

const ways = (): Way[] => [
  { path: "user", words: "DNS", sent: 1200, answered: 1200 },
  { path: "kernel", words: "HTTP", sent: 51, answered: 50 },
];

it("prints one line a second where lines cannot be rewritten", () => {
  let text = "";
  const screen = new Screen((more) => (text += more), false);
  screen.show(1, 1, ways());
  screen.show(2, 0.5, [{ ...ways()[0]!, answered: 2200 }, ways()[1]!]);
  expect(text).toBe("  1 s  DNS 1,200/s   HTTP 50/s\n  2 s  DNS 2,000/s   HTTP 0/s\n");
});

it("goes up over its own lines on a terminal, and over nobody else's", () => {
  let text = "";
  const screen = new Screen((more) => (text += more), true);
  screen.show(1, 1, ways());
  expect(text).not.toContain("A");
  screen.show(2, 1, ways());
  expect(text).toContain("\x1b[3A");
  screen.say("a line that stays");
  text = "";
  screen.show(3, 1, ways());
  expect(text).not.toContain("\x1b[3A");
});

it("ends with a table that says what was not answered", () => {
  let text = "";
  new Screen((more) => (text += more), false).table(ways());
  expect(text.split("\n").slice(1, 4)).toEqual([
    "  path     traffic    sent   answered   unanswered",
    "  user     DNS       1,200      1,200            0",
    "  kernel   HTTP         51         50            1",
  ]);
});

it("reads events, and passes over other lines", () => {
  expect(parseEvent('{"event":"end","reason":"SIGINT","stats":{}}')?.event).toBe("end");
  expect(parseEvent("hello")).toBeNull();
  expect(parseEvent("{}")).toBeNull();
});
