// The user's cache of what guests are made of: entries are keyed by what they were made from, put in place whole,
// and checked before they are used.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { constants as fsConstants, createReadStream, existsSync, readlinkSync } from "node:fs";
import {
  access,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  statfs,
  writeFile,
} from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { BifurcateError, errnoOf, messageOf } from "@bifurcate/control/errors";

/** What an entry is, and how it is made. */
export interface Recipe {
  /** Its name in the cache and in what is said, e.g. "qemu". */
  readonly name: string;
  /** All that its contents follow from: another value makes another entry. */
  readonly from: unknown;
  /** Room that making it needs, in bytes, working files included. */
  readonly room: number;
  /** Makes its files in an empty folder. `scratch` is another one, removed afterwards. */
  readonly make: (folder: string, scratch: string, say: Say) => Promise<void>;
}

/** Tells a person what is being done. */
export type Say = (text: string) => void;

/** A file of an entry, as it was when its contents were last checked. */
interface Checked {
  readonly size: number;
  readonly sha256: string;
  /** Time of last modification in ns, and the inode: while size and these stand, the contents are trusted. */
  readonly mtime: string;
  readonly inode: string;
}

const MANIFEST = "manifest.json";

/**
 * Holds the lock of the file $1 until its stdin ends. Says `waiting` when another has it (EX_TEMPFAIL of sysexits.h),
 * and `got` when it has it itself.
 */
const HOLDER = `exec 9>> "$1"
flock --nonblock --conflict-exit-code 75 9 || {
  status=$?
  [ $status -eq 75 ] || exit $status
  echo waiting
  flock 9 || exit
}
echo got
exec cat`;

/** What half-made entries are kept for, where nobody can tell whether their maker lives, in milliseconds. */
const DAY_MS = 86_400_000;

/** The folder of all entries: XDG_CACHE_HOME, else ~/.cache (XDG Base Directory Specification). */
export function cacheFolder(): string {
  const base = process.env["XDG_CACHE_HOME"];
  return path.join(base?.startsWith("/") ? base : path.join(homedir(), ".cache"), "bifurcate", "guest");
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Folder of an entry. */
export function entryFolder(recipe: Pick<Recipe, "name" | "from">): string {
  return path.join(cacheFolder(), `${recipe.name}-${digest(JSON.stringify(recipe.from)).slice(0, 16)}`);
}

async function contentsOf(file: string, link: boolean): Promise<string> {
  if (link) return digest(await readlink(file));
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** Files and symbolic links below a folder, by their path in it. */
async function filesOf(folder: string): Promise<string[]> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  return found
    .filter((entry) => entry.isFile() || entry.isSymbolicLink())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
    .filter((name) => name !== MANIFEST)
    .sort();
}

async function check(file: string): Promise<Checked> {
  const status = await lstat(file, { bigint: true });
  const contents = await contentsOf(file, status.isSymbolicLink());
  return {
    size: Number(status.size),
    sha256: contents,
    mtime: String(status.mtimeNs),
    inode: String(status.ino),
  };
}

async function writeManifest(folder: string, recipe: Recipe, files: Record<string, Checked>): Promise<void> {
  const file = path.join(folder, MANIFEST);
  await writeFile(`${file}.${process.pid}`, `${JSON.stringify({ from: recipe.from, files }, null, 1)}\n`);
  await rename(`${file}.${process.pid}`, file);
}

/**
 * Whether an entry is whole. As git does with its index: a file whose size, time and inode are as they were is
 * taken as it was; any other is read again.
 * @param thorough Reads all of them.
 * @returns null when it is whole, else what is wrong with it.
 */
async function flaw(folder: string, recipe: Recipe, thorough: boolean): Promise<string | null> {
  let files: Record<string, Checked>;
  try {
    files = (JSON.parse(await readFile(path.join(folder, MANIFEST), "utf8")) as { files: typeof files })
      .files;
    if (Object.keys(files).length === 0) return "its manifest is empty";
  } catch (error) {
    return errnoOf(error) === "ENOENT" ? "it has no manifest" : "its manifest cannot be read";
  }
  let stale = false;
  for (const [name, known] of Object.entries(files)) {
    const file = path.join(folder, name);
    try {
      const { size, mtimeNs, ino } = await lstat(file, { bigint: true });
      if (Number(size) !== known.size) return `${name} has ${size} bytes instead of ${known.size}`;
      if (!thorough && String(mtimeNs) === known.mtime && String(ino) === known.inode) continue;
      const now = await check(file);
      if (now.sha256 !== known.sha256) return `${name} has other contents than when it was made`;
      files[name] = now;
      stale = true;
    } catch {
      return `${name} is missing or cannot be read`;
    }
  }
  if (stale) await writeManifest(folder, recipe, files).catch(() => undefined); // a read-only cache works too
  return null;
}

/**
 * Runs `work` while no other process does so for the same entry, in whatever namespaces it is. The lock is a file's
 * (flock(2)), held by a child that ends with this process: the kernel takes it back then.
 */
async function locked<Result>(folder: string, say: Say, work: () => Promise<Result>): Promise<Result> {
  const locks = path.join(path.dirname(folder), "..", "locks");
  await mkdir(locks, { recursive: true });
  const file = path.join(locks, path.basename(folder));
  const holder = spawn("sh", ["-c", HOLDER, "sh", file], { stdio: ["pipe", "pipe", "pipe"] });
  holder.stdin.on("error", () => undefined);
  let wrong = "";
  holder.stderr.setEncoding("utf8").on("data", (text: string) => (wrong += text));
  const ended = new Promise<number | null>((resolve) => {
    holder.on("error", (error) => {
      wrong = error.message;
      resolve(null);
    });
    holder.on("close", resolve);
  });
  const got = new Promise<"got">((resolve) => {
    createInterface({ input: holder.stdout }).on("line", (line) => {
      if (line === "waiting") say(`another run is making ${path.basename(folder)}; waiting for it`);
      else resolve("got");
    });
  });
  try {
    const first = await Promise.race([got, ended]);
    if (first === 127) {
      const next = "Install it: apt-get install util-linux.";
      throw new BifurcateError("E_MISSING_TOOL", { what: "run flock", why: "it is not installed", next });
    }
    if (first !== "got") throw cacheError(`lock ${file}`, wrong.trim() || "flock(1) ended");
    return await work();
  } finally {
    holder.stdin.end();
    await ended;
  }
}

function cacheError(what: string, why: string, next?: string, cause?: unknown): BifurcateError {
  return new BifurcateError("E_GUEST_CACHE", { what, why, next, cause });
}

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;

async function needRoom(recipe: Recipe, parent: string): Promise<void> {
  const { bavail, bsize } = await statfs(parent);
  if (bavail * bsize >= recipe.room) return;
  throw cacheError(
    `make ${recipe.name} for the guest`,
    `it needs ${mebibytes(recipe.room)}, and ${parent} has ${mebibytes(bavail * bsize)} free`,
    "Free some space, or name a folder on another disk with XDG_CACHE_HOME.",
  );
}

async function makeEntry(folder: string, recipe: Recipe, say: Say): Promise<void> {
  const parent = path.dirname(folder);
  const partial = halfMade(folder);
  const [fresh, scratch] = [path.join(partial, "entry"), path.join(partial, "scratch")];
  await needRoom(recipe, parent);
  try {
    await mkdir(fresh, { recursive: true });
    await mkdir(scratch, { recursive: true });
    await recipe.make(fresh, scratch, say);
    const files: Record<string, Checked> = {};
    for (const name of await filesOf(fresh)) files[name] = await check(path.join(fresh, name));
    await writeManifest(fresh, recipe, files);
    // Aside first: whoever looks meanwhile finds the old one, or none, never a half of it.
    await rename(folder, path.join(partial, "before")).catch((error: unknown) => {
      if (errnoOf(error) !== "ENOENT") throw error;
    });
    await rename(fresh, folder);
  } catch (error) {
    if (errnoOf(error) !== "ENOSPC") throw error;
    throw cacheError(`make ${recipe.name} for the guest`, "the disk is full", undefined, error);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

/** Where this process has an entry while it is not whole; sweep() knows it by its name. */
function halfMade(folder: string): string {
  const name = `.${path.basename(folder)}.${pidNamespace()}-${process.pid}`;
  return path.join(path.dirname(folder), name);
}

/** A process id says nothing in another namespace of them. */
function pidNamespace(): string {
  return /\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? "0";
}

/**
 * Removes what processes that are gone have left half made. All of the entry that is locked: nobody else makes it. Of
 * others what a process of this namespace left that is no more, and what is older than a day.
 * @param entry The one that is locked, if any.
 */
async function sweep(parent: string, entry: string | null): Promise<void> {
  for (const name of await readdir(parent)) {
    const [, of, namespace = pidNamespace(), pid] = /^\.(.+)\.(?:(\d+)-)?(\d+)$/.exec(name) ?? [];
    if (pid === undefined) continue;
    const left = path.join(parent, name);
    try {
      const gone = namespace === pidNamespace() && !existsSync(`/proc/${pid}`);
      if (of !== entry && !gone && Date.now() - (await lstat(left)).mtimeMs < DAY_MS) continue;
      await rm(left, { recursive: true, force: true });
    } catch (error) {
      // Another user's, or removed by another run meanwhile: no trouble of this one, unless it is in its way.
      if (of === entry) throw cacheError(`remove ${left}`, messageOf(error), "Remove it by hand.", error);
    }
  }
}

/**
 * The folder of an entry, made first where it is missing, cut short or corrupt.
 * @param thorough Reads every file again, instead of those only whose size, time or inode changed.
 * @throws BifurcateError E_GUEST_CACHE when the cache cannot be written or is full, and what `make` throws.
 */
export async function provide(recipe: Recipe, say: Say, thorough = false): Promise<string> {
  const folder = entryFolder(recipe);
  const parent = path.dirname(folder);
  if (/[:\n]/.test(folder)) {
    // The loader takes a list of folders, separated by colons (ld.so(8)).
    const next = "Name a folder without colons with XDG_CACHE_HOME.";
    throw cacheError("use the guest's cache", `${folder} has a colon or a line's end in its path`, next);
  }
  if ((await flaw(folder, recipe, thorough)) === null) return folder;
  try {
    await mkdir(parent, { recursive: true });
    await access(parent, fsConstants.W_OK);
  } catch (error) {
    throw cacheError(
      "use the guest's cache",
      messageOf(error),
      "Name another folder with XDG_CACHE_HOME.",
      error,
    );
  }
  return locked(folder, say, async () => {
    await sweep(parent, path.basename(folder));
    // Another run may have made it while we waited.
    const wrong = await flaw(folder, recipe, thorough);
    if (wrong === null) return folder;
    const existed = await access(folder).then(
      () => true,
      () => false,
    );
    say(
      existed
        ? `${recipe.name}: ${wrong}; making it again`
        : `${recipe.name}: not in the cache yet; making it`,
    );
    await makeEntry(folder, recipe, say);
    return folder;
  });
}

/** The folder of an entry that is whole; null where it would have to be made. */
export async function cached(recipe: Recipe): Promise<string | null> {
  const folder = entryFolder(recipe);
  return (await flaw(folder, recipe, false)) === null ? folder : null;
}

/** Removes what runs that were interrupted have left half made: it may be gigabytes. */
export async function sweepCache(): Promise<void> {
  const parent = cacheFolder();
  // One that cannot be read is told by whoever needs it.
  if (existsSync(parent)) await sweep(parent, null).catch(() => undefined);
}

/**
 * Removes entries whose place others have taken: those of a recipe's name that are made from something else.
 * @param recipes All that is still made.
 * @throws BifurcateError E_GUEST_CACHE when one cannot be removed.
 */
export async function pruneCache(recipes: readonly Pick<Recipe, "name" | "from">[], say: Say): Promise<void> {
  const parent = cacheFolder();
  const names = new Set(recipes.map(({ name }) => name));
  const kept = new Set(recipes.map((recipe) => path.basename(entryFolder(recipe))));
  for (const entry of existsSync(parent) ? await readdir(parent) : []) {
    const name = /^(.+)-[0-9a-f]{16}$/.exec(entry)?.[1];
    if (name === undefined || !names.has(name) || kept.has(entry)) continue;
    const folder = path.join(parent, entry);
    await locked(folder, say, async () => {
      const aside = halfMade(folder);
      try {
        await rename(folder, aside);
        await rm(aside, { recursive: true, force: true });
      } catch (error) {
        throw cacheError(`remove ${folder}`, messageOf(error), "Remove it by hand.", error);
      }
    });
    say(`${entry}: removed, since ${name} is made from something else now`);
  }
}
