// The first use of a guest where something is missing: no Debian tools, no network, no room on the disk.
import { spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cliPath } from "../harness.js";

/** A built module of the guest's, for processes of its own. */
const built = (name: string): string =>
  JSON.stringify(path.join(path.dirname(cliPath), "../../lab/dist/guest", `${name}.js`));

/** What stands before a command that may make no namespace, as in many containers. */
const POWERLESS = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"];

let home: string;

beforeEach(({ skip }) => {
  skip(process.getuid?.() !== 0, "needs root: it makes namespaces");
  home = mkdtempSync(path.join(tmpdir(), "bifurcate-first-"));
});

afterEach(() => rmSync(home, { recursive: true, force: true }));

/** Runs `bifurcate lab guest --json -- true` with an empty cache, below another command. */
function firstUse(
  prefix: readonly string[],
  environment: NodeJS.ProcessEnv = {},
  nics = "none",
): { status: number | null; stderr: string } {
  const words = [process.execPath, cliPath, "lab", "guest", "--nics", nics, "--kernel", "6.12", "--", "true"];
  const [program, ...args] = [...prefix, ...words] as [string, ...string[]];
  return spawnSync(program, args, {
    env: { ...process.env, XDG_CACHE_HOME: home, ...environment },
    encoding: "utf8",
  });
}

/** What the cache's folder holds, half-made entries included. */
const left = (): string[] => readdirSync(path.join(home, "bifurcate/guest"));

describe("the first use", () => {
  it("without Debian's tools says so and ends with 77", () => {
    const tools = path.join(home, "bin");
    mkdirSync(tools);
    for (const tool of ["env", "flock", "sh", "cat"]) {
      symlinkSync(realpathSync(`/usr/bin/${tool}`), path.join(tools, tool));
    }
    const { status, stderr } = firstUse([], { PATH: tools });
    expect(stderr).toContain("apt-get: it is not installed");
    expect(stderr).toContain("code: E_MISSING_TOOL");
    expect(status).toBe(77);
    expect(left()).toEqual([]);
  });

  it("without Debian's key names the package that has it, before anything is asked of the archive", () => {
    const without = 'mount -t tmpfs tmpfs /usr/share/keyrings && exec "$@"';
    const { status, stderr } = firstUse(["unshare", "--mount", "--net", "--", "sh", "-c", without, "sh"]);
    expect(stderr).toContain("next: Install it: apt-get install debian-archive-keyring.");
    expect(stderr).toContain("code: E_MISSING_TOOL");
    expect(status).toBe(77);
    expect(left()).toEqual([]);
  });

  it("where namespaces are forbidden says before it fetches the kernel's source that Debian's need none", () => {
    const script = `
      import { buildRoot } from ${built("lab-kernel")};
      const said = [];
      const error = await buildRoot("kernel-lab", process.env.XDG_CACHE_HOME, [], (text) => said.push(text)).catch((e) => e);
      console.log(JSON.stringify([error.code, error.why, error.next, said]));`;
    const [program, ...args] = [...POWERLESS, process.execPath, "--input-type=module", "-e", script];
    const { stdout, stderr } = spawnSync(program!, args, {
      env: { ...process.env, XDG_CACHE_HOME: home },
      encoding: "utf8",
    });
    const [code, why, next, said] = JSON.parse(stdout || stderr) as [string, string, string, string[]];
    expect(code).toBe("E_GUEST_BUILD");
    expect(why).toContain("Operation not permitted");
    expect(next).toContain("--kernel stock");
    expect(said).toEqual([]);
  });

  it("of a NIC with several queues, without the right to make its taps, says so and fetches nothing", () => {
    const { status, stderr } = firstUse(POWERLESS, {}, "virtio:4");
    expect(stderr).toContain("make the taps of a NIC with several queues: the process lacks CAP_SYS_ADMIN");
    expect(stderr).toContain("code: E_NOT_PRIVILEGED");
    expect(status).toBe(1);
    expect(readdirSync(home)).toEqual([]);
  });

  it("without a network names the archive's answer, ends with 77 and leaves nothing half made", () => {
    const { status, stderr } = firstUse(["unshare", "--net", "--"]);
    expect(stderr).toMatch(/E: Failed to fetch|Could not resolve|Temporary failure resolving/);
    expect(stderr).toContain("code: E_GUEST_FETCH");
    expect(status).toBe(77);
    expect(left()).toEqual([]);
  });

  it("on a disk without room says how much it needs and has, and fetches nothing", () => {
    const small = `mount -t tmpfs -o size=32m tmpfs ${home} && exec "$@"`;
    const { status, stderr } = firstUse(["unshare", "--mount", "--", "sh", "-c", small, "sh"]);
    expect(stderr).toMatch(/it needs 1024 MiB, and \S+ has 3\d MiB free/);
    expect(stderr).toContain("code: E_GUEST_CACHE");
    expect(status).toBe(1);
  });

  it("by two processes at once is made by one of them, and the other waits and says so", () => {
    const script = `
      import { existsSync, writeFileSync, readFileSync, appendFileSync } from "node:fs";
      import { provide } from ${built("cache")};
      const [made, waits] = ["/made", "/waits"].map((name) => process.env.XDG_CACHE_HOME + name);
      const make = async (folder) => {
        appendFileSync(made, "x");
        while (!existsSync(waits)) await new Promise((resolve) => setTimeout(resolve, 20));
        writeFileSync(folder + "/disk", "whole");
      };
      let waited = false;
      const say = (text) => {
        if (!/waiting/.test(text)) return;
        waited = true;
        writeFileSync(waits, "");
      };
      const folder = await provide({ name: "image", from: 1, room: 1, make }, say);
      console.log(JSON.stringify([readFileSync(folder + "/disk", "utf8"), waited]));`;
    const node = [process.execPath, "--input-type=module", "-e", script];
    const both = ["sh", "-c", `"$@" & "$@"; wait`, "sh", ...node];
    const { stdout, stderr } = spawnSync(both[0]!, both.slice(1), {
      env: { ...process.env, XDG_CACHE_HOME: home },
      encoding: "utf8",
      timeout: 200_000,
    });
    expect(stdout.trim().split("\n").sort(), stderr).toEqual(['["whole",false]', '["whole",true]']);
    expect(readFileSync(path.join(home, "made"), "utf8")).toBe("x");
    expect(left()).toHaveLength(1);
  });

  it("on a disk that fills up on the way leaves nothing half made", () => {
    const script = `
      import { readdirSync, writeFileSync } from "node:fs";
      import { cacheFolder, provide } from ${built("cache")};
      const make = async (folder) => writeFileSync(folder + "/disk", Buffer.alloc(64 << 20));
      const error = await provide({ name: "image", from: 1, room: 1, make }, () => undefined).catch((e) => e);
      console.log(JSON.stringify([error.code, error.why, readdirSync(cacheFolder())]));`;
    const small = `mount -t tmpfs -o size=32m tmpfs ${home} && exec "$@"`;
    const node = [process.execPath, "--input-type=module", "-e", script];
    const { stdout, stderr } = spawnSync("unshare", ["--mount", "--", "sh", "-c", small, "sh", ...node], {
      env: { ...process.env, XDG_CACHE_HOME: home },
      encoding: "utf8",
    });
    expect(stdout, stderr).toBe('["E_GUEST_CACHE","the disk is full",[]]\n');
  });
});

describe("a temporary folder", () => {
  it.each([
    ["without room for a file", "size=32k"],
    ["without room for the packed project", "size=8m"],
    ["without room for a folder", "nr_inodes=1"],
  ])("%s is named, with the variable that names another", (_, options) => {
    const script = `
      import { readdirSync } from "node:fs";
      import { Guest } from ${built("guest")};
      import { DEFAULT_MACHINE } from ${built("machine")};
      import { packProject } from ${built("project")};
      const files = { root: "/dev/null", kernel: "/dev/null" };
      const error = await Guest.boot(DEFAULT_MACHINE, { qemu: ["false"], files, packProject }).catch((e) => e);
      console.log(JSON.stringify([error.code, error.why, error.next, readdirSync(process.env.TMPDIR)]));`;
    const small = `mount -t tmpfs -o ${options} tmpfs ${home} && exec "$@"`;
    const node = [process.execPath, "--input-type=module", "-e", script];
    const { stdout, stderr } = spawnSync("unshare", ["--mount", "--", "sh", "-c", small, "sh", ...node], {
      env: { ...process.env, TMPDIR: home },
      encoding: "utf8",
    });
    const next = "Free some space, or name another folder with TMPDIR.";
    expect(stdout, stderr).toBe(`${JSON.stringify(["E_GUEST", `the disk of ${home} is full`, next, []])}\n`);
  });
});
