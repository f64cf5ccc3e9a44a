// The cache: made once, whole or not at all, and made again when what is there is not what was made.
import { spawn } from "node:child_process";
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cached, cacheFolder, entryFolder, provide, pruneCache, sweepCache, type Recipe } from "./cache.js";

let home: string;
const before = process.env["XDG_CACHE_HOME"];

beforeEach(async () => {
  home = await mkdtemp(path.join(tmpdir(), "bifurcate-cache-"));
  process.env["XDG_CACHE_HOME"] = home;
});

afterEach(async () => {
  if (before === undefined) delete process.env["XDG_CACHE_HOME"];
  else process.env["XDG_CACHE_HOME"] = before;
  await rm(home, { recursive: true, force: true });
});

/** A recipe that counts how often it is made. */
function recipe(change: Partial<Recipe> = {}): Recipe & { made: number } {
  const made = {
    made: 0,
    name: "image",
    from: { version: 1 },
    room: 1,
    make: async (folder: string) => {
      made.made += 1;
      await writeFile(path.join(folder, "disk"), "0123456789");
    },
    ...change,
  };
  return made;
}

const said: string[] = [];
const say = (text: string): void => void said.push(text);

describe("an entry", () => {
  it("is made once", async () => {
    const one = recipe();
    const folder = await provide(one, say);
    expect(await provide(one, say)).toBe(folder);
    expect(one.made).toBe(1);
    expect(await readFile(path.join(folder, "disk"), "utf8")).toBe("0123456789");
    expect(folder.startsWith(path.join(home, "bifurcate"))).toBe(true);
  });

  it("is another one when it is made from something else", async () => {
    await provide(recipe(), say);
    const other = recipe({ from: { version: 2 } });
    await provide(other, say);
    expect(other.made).toBe(1);
    expect((await readdir(cacheFolder())).length).toBe(2);
  });

  it("is told to be there without being made", async () => {
    const one = recipe();
    expect(await cached(one)).toBeNull();
    const folder = await provide(one, say);
    expect(await cached(one)).toBe(folder);
    await truncate(path.join(folder, "disk"), 4);
    expect([await cached(one), one.made]).toEqual([null, 1]);
  });

  it("leaves nothing of itself when making it fails", async () => {
    const failing = recipe({
      make: async (folder) => {
        await writeFile(path.join(folder, "disk"), "01234");
        throw new Error("the network went away");
      },
    });
    await expect(provide(failing, say)).rejects.toThrow("the network went away");
    expect(await readdir(cacheFolder())).toEqual([]);
  });
});

describe("what is in the cache is not what was made", () => {
  const damages: Record<string, (folder: string) => Promise<void>> = {
    "a file was cut short": (folder) => truncate(path.join(folder, "disk"), 4),
    "a file has other bytes": (folder) => writeFile(path.join(folder, "disk"), "0123456780"),
    "a file grew": (folder) => appendFile(path.join(folder, "disk"), "x"),
    "a file is gone": (folder) => rm(path.join(folder, "disk")),
    "the manifest is gone": (folder) => rm(path.join(folder, "manifest.json")),
    "the manifest was cut short": (folder) => truncate(path.join(folder, "manifest.json"), 20),
    "the manifest is empty": (folder) => writeFile(path.join(folder, "manifest.json"), '{"files":{}}'),
  };
  for (const [title, damage] of Object.entries(damages)) {
    it(`${title}: it is noticed, said and made again`, async () => {
      const one = recipe();
      const folder = await provide(one, say);
      await damage(folder);
      said.length = 0;
      await provide(one, say);
      expect(one.made).toBe(2);
      expect(said.join("\n")).toMatch(/^image: .*making it again/);
      expect(await readFile(path.join(folder, "disk"), "utf8")).toBe("0123456789");
    });
  }

  it("a file was only touched: it is read, found well and kept", async () => {
    const one = recipe();
    const folder = await provide(one, say);
    await utimes(path.join(folder, "disk"), 1, 1);
    await provide(one, say);
    expect(one.made).toBe(1);
  });

  it("bytes that changed without a trace are found when all is read", async () => {
    const one = recipe();
    const folder = await provide(one, say);
    // As a failing disk would do it: size, time and inode stay. Here the manifest is what is changed.
    const manifest = path.join(folder, "manifest.json");
    const text = await readFile(manifest, "utf8");
    await writeFile(manifest, text.replace(/"sha256": "../, '"sha256": "zz'));
    await provide(one, say);
    expect(one.made).toBe(1);
    await provide(one, say, true);
    expect(one.made).toBe(2);
  });
});

describe("two runs at once", () => {
  it("make an entry once: the second waits, and says so", async () => {
    let begun = 0;
    said.length = 0;
    const slow = recipe({
      make: async (folder) => {
        begun += 1;
        await expect.poll(() => said.join("\n"), { timeout: 30_000 }).toContain("waiting for it");
        await writeFile(path.join(folder, "disk"), "x");
      },
    });
    const folders = await Promise.all([provide(slow, say), provide(slow, say)]);
    expect(begun).toBe(1);
    expect(folders[0]).toBe(folders[1]);
    expect(said.filter((text) => text.includes("waiting for it"))).toHaveLength(1);
  });

  it("remove what a run that died has left half made", async () => {
    await provide(recipe(), say);
    // No process has the number 0x7fffffff.
    const left = path.join(cacheFolder(), ".image-0000.2147483647");
    await rename(await mkdtemp(path.join(home, "half-")), left);
    await provide(recipe({ from: 2 }), say);
    expect((await readdir(cacheFolder())).filter((name) => name.startsWith("."))).toEqual([]);
  });

  it("begin anew where a run with the same process id left half an entry", async () => {
    const one = recipe({
      make: async (folder) => {
        expect(await readdir(folder)).toEqual([]);
        await writeFile(path.join(folder, "disk"), "whole");
      },
    });
    const folder = entryFolder(one);
    for (const pid of [`${process.pid}`, `4026531836-${process.pid}`, "1-1"]) {
      const left = path.join(cacheFolder(), `.${path.basename(folder)}.${pid}`, "entry");
      await mkdir(left, { recursive: true });
      await writeFile(path.join(left, "half"), "");
    }
    await provide(one, say);
    expect(await readdir(cacheFolder())).toEqual([path.basename(folder)]);
  });

  it("leave alone what a run in another container is making", async () => {
    const theirs = path.join(cacheFolder(), ".kernel-0000.1-2147483647");
    await mkdir(theirs, { recursive: true });
    await provide(recipe(), say);
    expect(await readdir(cacheFolder())).toContain(path.basename(theirs));
    await utimes(theirs, 1, 1);
    await provide(recipe({ from: 2 }), say);
    expect(await readdir(cacheFolder())).not.toContain(path.basename(theirs));
  });

  it("wait for each other in network namespaces of their own", async ({ skip }) => {
    skip(process.getuid?.() !== 0, "needs root: it makes network namespaces");
    const module = fileURLToPath(new URL("../../dist/guest/cache.js", import.meta.url));
    const program = `
      import { provide } from ${JSON.stringify(module)};
      import { appendFileSync, writeFileSync } from "node:fs";
      const log = process.env.XDG_CACHE_HOME + "/log";
      await provide({ name: "image", from: 1, room: 1, make: async (folder) => {
        appendFileSync(log, "made\\n");
        await new Promise((resolve) => setTimeout(resolve, 300));
        writeFileSync(folder + "/disk", "x");
      } }, () => undefined);
    `;
    const ended = await Promise.all(
      [1, 2, 3].map(() => {
        const words = ["--net", "--", process.execPath, "--input-type=module", "--eval", program];
        const child = spawn("unshare", words, { stdio: ["ignore", "inherit", "inherit"] });
        return new Promise((resolve) => child.once("close", resolve));
      }),
    );
    expect(ended).toEqual([0, 0, 0]);
    expect(await readFile(path.join(home, "log"), "utf8")).toBe("made\n");
  });
});

describe("what is left in the cache", () => {
  it("by a run that was interrupted is removed though nothing is made", async () => {
    await sweepCache(); // where there is no cache yet
    const folder = await provide(recipe(), say);
    const half = path.join(cacheFolder(), ".kernel-0000.2147483647", "scratch");
    await mkdir(half, { recursive: true });
    await sweepCache();
    expect(await readdir(cacheFolder())).toEqual([path.basename(folder)]);
  });

  it("by another version is removed when that is asked for, and nothing else", async () => {
    await pruneCache([recipe()], say);
    await provide(recipe({ from: "before" }), say);
    const [now, foreign] = [recipe(), recipe({ name: "dpdk" })];
    const kept = [await provide(now, say), await provide(foreign, say)];
    const notes = path.join(cacheFolder(), "image-notes");
    await mkdir(notes);
    said.length = 0;
    await pruneCache([now], say);
    const names = [...kept, notes].map((folder) => path.basename(folder));
    expect((await readdir(cacheFolder())).sort()).toEqual(names.sort());
    expect(said).toEqual([expect.stringMatching(/^image-[0-9a-f]{16}: removed/)]);
  });
});

describe("no room", () => {
  it("is said before anything is fetched", async () => {
    const huge = recipe({ room: Number.MAX_SAFE_INTEGER });
    await expect(provide(huge, say)).rejects.toMatchObject({ code: "E_GUEST_CACHE" });
    expect(huge.made).toBe(0);
  });

  it("where the folder cannot be made, is said with its name", async () => {
    await writeFile(path.join(home, "file"), "");
    process.env["XDG_CACHE_HOME"] = path.join(home, "file");
    await expect(provide(recipe(), say)).rejects.toMatchObject({ code: "E_GUEST_CACHE" });
  });
});

it("the folder of an entry depends on nothing but what it is made from", () => {
  expect(entryFolder({ name: "a", from: [1] })).toBe(entryFolder({ name: "a", from: [1] }));
  expect(entryFolder({ name: "a", from: [1] })).not.toBe(entryFolder({ name: "a", from: [2] }));
});
