// How words reach a person: the line that is rewritten in place, and the place where a handler failed.
import { BifurcateError } from "@bifurcate/control";
import { describe, expect, it } from "vitest";
import { LiveLine, renderError } from "./io.js";

function shown(live: boolean, columns: number | undefined): string {
  let text = "";
  const err = (piece: string): void => void (text += piece);
  const line = new LiveLine({ out: err, err, live, columns: () => columns });
  line.show("received 1,234/s");
  line.show("received 5/s");
  line.end();
  return text;
}

describe("the live line", () => {
  it("is rewritten on a terminal", () => {
    expect(shown(true, 80)).toBe("\r\x1b[2Kreceived 1,234/s\r\x1b[2Kreceived 5/s\n");
  });

  it("is cut to a narrow terminal, since a line that wraps cannot be rewritten", () => {
    expect(shown(true, 10)).toBe("\r\x1b[2Kreceived \r\x1b[2Kreceived \n");
  });

  it("is whole where no width is known", () => {
    for (const columns of [undefined, 0]) expect(shown(true, columns)).toContain("received 1,234/s\r");
  });

  it("is a line each time where there is no terminal, however narrow", () => {
    expect(shown(false, 10)).toBe("received 1,234/s\nreceived 5/s\n");
  });
});

describe("an error", () => {
  const words = { what: "run a handler", why: "it threw" };

  it("of a handler says where the handler threw", () => {
    const cause = new Error("my bug");
    cause.stack =
      "Error: my bug\n    at handle (/home/me/count.ts:7:9)\n    at step (/elsewhere/loop.js:1:1)";
    const text = renderError(new BifurcateError("E_HANDLER_THREW", { ...words, cause }), false);
    expect(text).toMatch(/code: E_HANDLER_THREW\n {2}at handle \(\/home\/me\/count\.ts:7:9\)\n$/);
  });

  it("of anything else shows no stack", () => {
    const text = renderError(new BifurcateError("E_SYSTEM", { ...words, cause: new Error("x") }), false);
    expect(text).toMatch(/code: E_SYSTEM\n$/);
  });
});
