// `npm run demo -- --seconds N --json` as it is documented: its last line, its exit status, and nothing left behind.
import { spawn, spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeEach, expect, it } from "vitest";

const main = fileURLToPath(new URL("../../dist/demo/main.js", import.meta.url));

beforeEach(({ skip }) => {
  skip(process.getuid?.() !== 0, "needs root: it makes network namespaces");
});

/** Namespaces that the demo with this process id has made. */
const namespaces = (pid: number): string[] =>
  readdirSync("/run/netns").filter((netns) => netns.includes(`bfd${pid}-`));

it("ends with one line of real counts, everything answered and restored", () => {
  const { status, stdout, stderr, pid } = spawnSync(process.execPath, [main, "--seconds", "15", "--json"], {
    encoding: "utf8",
  });
  expect(stdout.trim().split("\n"), stderr).toHaveLength(1);
  const line = JSON.parse(stdout) as { user: Record<string, number>; kernel: Record<string, number> };
  expect(line).toEqual({
    user: { sent: expect.any(Number), answered: line.user["sent"] },
    kernel: { sent: expect.any(Number), answered: line.kernel["sent"] },
    path: { backend: "af_xdp", mode: "copy", steering: "xdp" },
    restored: true,
  });
  expect(line.user["sent"]).toBeGreaterThan(0);
  expect(line.kernel["sent"]).toBeGreaterThan(0);
  expect(Object.keys(line)).toEqual(["user", "kernel", "path", "restored"]);
  expect(status).toBe(0);
  expect(namespaces(pid)).toEqual([]);
});

it("ends early on a signal, in good order, and still leaves nothing", async () => {
  const demo = spawn(process.execPath, [main, "--seconds", "60"], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  const traffic = new Promise<void>((resolve) => {
    demo.stdout.setEncoding("utf8").on("data", (more: string) => {
      text += more;
      if (/DNS .*[1-9]\d*\/s {3}HTTP/.test(text)) resolve();
    });
  });
  await Promise.race([traffic, new Promise((_, reject) => demo.once("exit", () => reject(new Error(text))))]);
  demo.kill("SIGINT");
  const status = await new Promise((resolve) => demo.once("close", resolve));
  expect(status, text).toBe(0);
  expect(text).toContain("Every setting of the card is as it was, and the lab is gone.");
  expect(namespaces(demo.pid!)).toEqual([]);
});

it("refuses a time that is none", () => {
  const { status, stderr } = spawnSync(process.execPath, [main, "--seconds", "soon"], { encoding: "utf8" });
  expect([status, stderr.includes("E_USAGE")]).toEqual([2, true]);
});
