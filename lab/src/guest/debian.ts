// Fetches Debian packages with apt's own checksums and signatures, into folders of ours: the host's packages,
// lists and sources are read at most.

import { spawn } from "node:child_process";
import { access, mkdir, readdir, statfs, writeFile } from "node:fs/promises";
import path from "node:path";
import { BifurcateError } from "@bifurcate/control/errors";
import { run } from "../tools.js";
import type { Say } from "./cache.js";
import { DYING, must } from "./tree.js";

/** Debian's key for its archives, from the package debian-archive-keyring. */
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** Suites that packages come from: the release the guest runs, and the kernel of the one before. */
export const RELEASE = "trixie";
export const OLD_RELEASE = "bookworm";

/** Packages to fetch: resolved together, with what they depend on. */
export interface PackageSet {
  readonly suites: readonly string[];
  readonly packages: readonly string[];
  /** Suite that is preferred where it has a package, e.g. trixie-backports. */
  readonly prefer?: string;
  /** Which of the resolved packages are fetched, by name; all when left out. */
  readonly only?: RegExp;
}

async function tool(
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<string> {
  const argv = ["-u", "LANG", "LC_ALL=C", ...Object.entries(environment).map(([k, v]) => `${k}=${v ?? ""}`)];
  const ended = await run("env", [...argv, command, ...args]);
  if (ended.status === 127) {
    throw new BifurcateError("E_MISSING_TOOL", {
      what: `run ${command}`,
      why: "it is not installed, and the guest is made of Debian packages",
      next: "Use a machine with Debian's apt and dpkg.",
    });
  }
  if (ended.status !== 0) throw fetchError(`${command} ${args.join(" ")}`, ended.stderr || ended.stdout);
  return ended.stdout;
}

/** Bytes below which a disk counts as full, when something could not be written: less than any package's own. */
const FULL = 2 ** 22;

/** What a tool that failed was about: the disk that it writes to, what it was asked for, or the network. */
async function failure(what: string, said: string, folder: string): Promise<BifurcateError> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize < FULL || /No space left on device|don't have enough free space/.test(said)) {
    return new BifurcateError("E_GUEST_CACHE", { what, why: `the disk of ${folder} is full` });
  }
  const error = fetchError(what, said);
  // Nothing that another try mends: the archive was reached.
  if (!/Unable to locate package|no installation candidate|is not signed|GPG error/.test(said)) return error;
  return new BifurcateError("E_GUEST_BUILD", { what, why: error.why });
}

function fetchError(what: string, said: string): BifurcateError {
  const lines = said.split("\n").filter((line) => /^[EW]: |^\S+: error/.test(line));
  return new BifurcateError("E_GUEST_FETCH", {
    what,
    why: (lines.length > 0 ? lines.slice(0, 6) : said.trim().split("\n").slice(-6)).join("; "),
  });
}

/** Names of Debian's suites, as a list of sources has them. */
const SUITE = /^(stable|testing|unstable|sid|oldstable|bookworm|trixie|forky|duke)$/;

/** The archive that this machine's apt uses for Debian itself, or the one that BIFURCATE_DEBIAN_MIRROR names. */
export async function mirror(): Promise<string> {
  const named = process.env["BIFURCATE_DEBIAN_MIRROR"];
  if (named !== undefined && named !== "") return named;
  const format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)";
  const targets = (await tool("apt-get", ["indextargets", "--format", format])).split("\n");
  for (const line of targets) {
    const [uri, release, component, origin] = line.split("|");
    // Others have a "stable main" too.
    if (origin === "Debian" && component === "main" && SUITE.test(release ?? "")) return uri!;
  }
  // Origins stand in the lists, and a fresh machine or an image has none: what would be fetched is known even so.
  const archive = archiveWithoutLists(await tool("apt-get", ["--print-uris", "update"]));
  if (archive !== undefined) return archive;
  throw new BifurcateError("E_GUEST_FETCH", {
    what: "find a Debian archive",
    why: "this machine's apt names none",
    next: "Name one in BIFURCATE_DEBIAN_MIRROR, e.g. the address that sources.list of a Debian machine has.",
  });
}

/**
 * The archive in what `apt-get --print-uris update` prints. Others name their suites after Debian's; Debian's own
 * archive is the one that has main, and updates of the suite, where there is one that has both.
 */
function archiveWithoutLists(printed: string): string | undefined {
  const fetched = [...printed.matchAll(/^'(\S+\/)dists\/([^/']+)\/(\S+)'/gm)];
  const has = (archive: string, suite: string, file: RegExp): boolean =>
    fetched.some(([, uri, name, rest]) => uri === archive && name === suite && file.test(rest!));
  const candidates = fetched
    .map(([, uri, suite]) => ({ uri: uri!, suite: suite! }))
    .filter(({ uri, suite }) => SUITE.test(suite) && has(uri, suite, /^main\//));
  const updated = candidates.find(({ uri, suite }) => has(uri, `${suite}-updates`, /^main\//));
  return (updated ?? candidates[0])?.uri;
}

/** Without Debian's key, apt says of every archive that it is not signed. */
async function needKeyring(): Promise<void> {
  try {
    await access(KEYRING);
  } catch (error) {
    throw new BifurcateError("E_MISSING_TOOL", {
      what: "check the signatures of Debian's archive",
      why: `${KEYRING} is not there`,
      next: "Install it: apt-get install debian-archive-keyring.",
      cause: error,
    });
  }
}

/** What the machine says about reaching archives: proxies, certificates, retries. */
async function acquireSettings(): Promise<string> {
  const dump = await tool("apt-config", ["dump"]);
  return dump
    .split("\n")
    .filter((line) => /^Acquire::/.test(line) && !/^Acquire::(IndexTargets|Languages|GzipIndexes)/.test(line))
    .join("\n");
}

/** An apt of its own below `folder`; returns its configuration file. */
async function privateApt(folder: string, set: PackageSet): Promise<string> {
  for (const each of [
    "etc/apt.conf.d",
    "etc/preferences.d",
    "state/lists/partial",
    "archives/partial",
    "log",
  ]) {
    await mkdir(path.join(folder, each), { recursive: true });
  }
  const quoted = (name: string): string => `"${path.join(folder, name)}"`;
  const archive = await mirror();
  await needKeyring();
  const source = `deb [signed-by=${KEYRING} arch=amd64] ${archive}`;
  await writeFile(path.join(folder, "sources.list"), set.suites.map((s) => `${source} ${s} main\n`).join(""));
  await writeFile(path.join(folder, "status"), "");
  if (set.prefer !== undefined) {
    const pin = `Package: *\nPin: release n=${set.prefer}\nPin-Priority: 600\n`;
    await writeFile(path.join(folder, "etc/preferences.d/prefer"), pin);
  }
  const file = path.join(folder, "apt.conf");
  await writeFile(
    file,
    `${await acquireSettings()}
Dir ${quoted(".")};
Dir::Etc ${quoted("etc")};
Dir::Etc::main "/dev/null";
Dir::Etc::parts ${quoted("etc/apt.conf.d")};
Dir::Etc::sourcelist ${quoted("sources.list")};
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts ${quoted("etc/preferences.d")};
Dir::State ${quoted("state")};
Dir::State::status ${quoted("status")};
Dir::Cache ${quoted(".")};
Dir::Cache::archives ${quoted("archives")};
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Log ${quoted("log")};
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
`,
  );
  return file;
}

/**
 * Runs apt-get in a folder and tells its progress from the status lines that it writes on descriptor 3
 * (APT::Status-Fd). It ends with this process.
 */
function aptGet(
  config: string,
  folder: string,
  args: readonly string[],
  title: string,
  say: Say,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const [command, ...words] = [...DYING, "apt-get", "-q", "-o", "APT::Status-Fd=3", ...args];
    const child = spawn(command!, words, {
      cwd: folder,
      env: { ...process.env, LC_ALL: "C", APT_CONFIG: config, DEBIAN_FRONTEND: "noninteractive" },
      stdio: ["ignore", "pipe", "pipe", "pipe"],
    });
    let [stdout, stderr, told] = ["", "", 0];
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      const need = /Need to get ([^\n]+) of archives/.exec(text)?.[1];
      if (need !== undefined) say(`${title}: ${need.replace(/\/.*/, "")} to fetch`);
    });
    child.stderr!.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.stdio[3]!.on("data", (bytes: Buffer) => {
      const percent = Number(/dlstatus:\d+:([\d.]+):/.exec(String(bytes))?.[1] ?? 0);
      if (percent < told + 20) return;
      told = Math.floor(percent / 20) * 20;
      say(`${title}: ${told} % fetched`);
    });
    child.on("error", (error) => reject(fetchError("run apt-get", `E: ${error.message}`)));
    child.on("close", (status) => {
      if (status === 0) resolve(stdout);
      else failure(`fetch ${title} from Debian`, stderr || stdout, folder).then(reject, reject);
    });
  });
}

/**
 * Fetches a set of packages and all that they depend on.
 * @param folder Where the .deb files are put; other files of apt's stand beside them.
 * @returns The .deb files.
 * @throws BifurcateError E_GUEST_FETCH: no network, no archive, a checksum or signature that does not match;
 *   E_MISSING_TOOL: no apt, or not Debian's key.
 */
export async function fetchPackages(
  folder: string,
  title: string,
  set: PackageSet,
  say: Say,
): Promise<string[]> {
  const config = await privateApt(folder, set);
  say(`${title}: reading the lists of ${set.suites.join(", ")}`);
  // Left alone, `update` ends well when an archive cannot be reached, and nothing can be resolved then.
  await aptGet(config, folder, ["update", "-o", "APT::Update::Error-Mode=any"], title, say);
  let wanted = set.packages;
  if (set.only !== undefined) {
    const resolved = await tool("apt-get", ["-s", "install", "-y", ...wanted], { APT_CONFIG: config });
    wanted = [...resolved.matchAll(/^Inst (\S+)/gm)]
      .map((match) => match[1]!)
      .filter((n) => set.only!.test(n));
    const archives = path.join(folder, "archives");
    await download(config, archives, wanted, title, say);
  } else {
    await aptGet(config, folder, ["install", "-y", "--download-only", ...wanted], title, say);
  }
  const archives = path.join(folder, "archives");
  return (await readdir(archives))
    .filter((name) => name.endsWith(".deb"))
    .map((name) => path.join(archives, name));
}

/** `apt-get download`: the named packages alone, checked as `install` checks them. */
async function download(
  config: string,
  into: string,
  packages: readonly string[],
  title: string,
  say: Say,
): Promise<void> {
  // 'URI' file bytes checksum, a line each.
  const listed = await tool("apt-get", ["--print-uris", "download", ...packages], { APT_CONFIG: config });
  const bytes = [...listed.matchAll(/^'\S+' \S+ (\d+) /gm)].reduce((sum, match) => sum + Number(match[1]), 0);
  say(`${title}: fetching ${packages.join(", ")}, ${(bytes / 1e6).toFixed(1)} MB`);
  await aptGet(config, into, ["download", ...packages], title, say);
}

/** Unpacks packages into a folder, in name order; none of their scripts run. */
export async function unpack(debs: readonly string[], root: string): Promise<void> {
  await mkdir(root, { recursive: true });
  for (const deb of [...debs].sort()) await must("dpkg-deb", ["--extract", deb, root]);
}
