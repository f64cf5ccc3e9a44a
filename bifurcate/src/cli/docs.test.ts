// docs/cli.md against the command line itself: its commands parse, and it leaves no command and no option out.
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { describe, expect, it } from "vitest";
import { words } from "../testing/recipe.js";
import { makeProgram } from "./program.js";

const text = readFileSync(new URL("../../../docs/cli.md", import.meta.url), "utf8");
const streams = { out: () => undefined, err: () => undefined, live: false };

/** The command line with nothing behind it: it only parses. */
async function parser(): Promise<Command> {
  const program = await makeProgram(streams);
  const hollow = (command: Command): void => {
    if (command.commands.length === 0) command.action(() => undefined);
    command.commands.forEach(hollow);
  };
  hollow(program);
  return program;
}

const whole = await makeProgram(streams);
const commands = [...text.matchAll(/^\$ bifurcate (.*)$/gm)].map((match) => match[1]!);

describe("docs/cli.md", () => {
  it("has commands", () => expect(commands.length).toBeGreaterThan(20));

  for (const line of new Set(commands)) {
    it(`bifurcate ${line}`, async () => {
      await (await parser()).parseAsync(words(line), { from: "user" });
    });
  }

  it("refuses what does not exist, so that the tests above mean something", async () => {
    const program = await parser();
    await expect(program.parseAsync(["split", "eth0", "--flows", "udp"], { from: "user" })).rejects.toThrow();
  });

  for (const command of whole.commands) {
    it(`describes ${command.name()} and its options`, () => {
      const section = new RegExp(`^## ${command.name()}$([\\s\\S]*?)(?=^## )`, "m").exec(text)?.[1] ?? "";
      expect(section).not.toBe("");
      const options = [command, ...command.commands].flatMap((each) =>
        each.options.map((option) => option.long!),
      );
      // What every command has is described once.
      const missing = options.filter((long) => long !== "--json" && !section.includes(long));
      expect(missing).toEqual([]);
    });
  }
});
