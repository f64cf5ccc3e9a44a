// Which archive the guest's packages come from, read from this machine's apt as it is set up.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { mirror } from "./debian.js";

let folder: string;

beforeEach(({ skip }) => {
  skip(spawnSync("apt-get", ["--version"]).status !== 0, "needs apt-get");
  folder = mkdtempSync(path.join(tmpdir(), "bifurcate-apt-"));
  vi.stubEnv("BIFURCATE_DEBIAN_MIRROR", "");
});

afterEach(() => {
  vi.unstubAllEnvs();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

/** Has apt read these sources, and lists that are not there, as after an image was made. */
function freshApt(...sources: string[]): void {
  mkdirSync(path.join(folder, "lists"));
  writeFileSync(path.join(folder, "sources.list"), sources.map((source) => `deb ${source}\n`).join(""));
  writeFileSync(
    path.join(folder, "apt.conf"),
    `Dir::Etc::sourcelist "${folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "${folder}/lists/";
`,
  );
  vi.stubEnv("APT_CONFIG", path.join(folder, "apt.conf"));
}

describe("the archive of an apt that has no lists", () => {
  it("is found in its sources, archives of others with suites of that name beside it", async () => {
    freshApt(
      "http://archive.invalid/agent/debian bookworm main",
      "http://docker.invalid/linux/debian bookworm stable",
      "http://archive.invalid/debian bookworm main",
      "http://archive.invalid/debian bookworm-updates main",
      "http://archive.invalid/debian-security bookworm-security main",
    );
    expect(await mirror()).toBe("http://archive.invalid/debian/");
  });

  it("is found where it has no updates", async () => {
    freshApt(
      "http://docker.invalid/linux/debian sid stable",
      "http://archive.invalid/debian sid main contrib",
    );
    expect(await mirror()).toBe("http://archive.invalid/debian/");
  });

  it("is not guessed where there is none of Debian's", async () => {
    freshApt("http://archive.invalid/ubuntu noble main", "http://node.invalid/node_20.x nodistro main");
    await expect(mirror()).rejects.toMatchObject({
      code: "E_GUEST_FETCH",
      next: expect.stringContaining("BIFURCATE_DEBIAN_MIRROR") as string,
    });
  });
});
