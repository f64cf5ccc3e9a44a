// Builds the lab's own kernel from Debian's source with lab/guest/kernel.config, by Debian's compiler in a tree of
// its own: nothing of it is installed on the host.

import { copyFile, mkdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { BifurcateError } from "@bifurcate/control/errors";
import { run } from "../tools.js";
import type { Recipe, Say } from "./cache.js";
import { fetchPackages, RELEASE, unpack } from "./debian.js";
import { DYING, follow } from "./tree.js";

/** The source; the toolchain that its Makefile asks for. */
export const SOURCE = "linux-source-7.3";
export const TOOLCHAIN = [
  ...[
    "bash",
    "coreutils",
    "cpio",
    "dash",
    "diffutils",
    "findutils",
    "gawk",
    "grep",
    "gzip",
    "sed",
    "tar",
    "xz-utils",
  ],
  ...["bc", "bison", "flex", "gcc", "kmod", "libc6-dev", "libssl-dev", "make", "perl-base", "python3"],
  ...["dwarves", "libelf-dev"], // BTF: pahole, and resolve_btfids
];

const CONFIG = fileURLToPath(new URL("../../guest/kernel.config", import.meta.url));

/** Checks that no option of the fragment was dropped: a kernel without it would be found out much later. */
const BUILD = `set -eu
export PATH=/usr/sbin:/usr/bin LC_ALL=C HOME=/ KBUILD_BUILD_USER=bifurcate KBUILD_BUILD_HOST=lab
cd /build
echo "unpacking the source"
tar -xf /usr/src/${SOURCE}.tar.xz --strip-components=1
make -s allnoconfig KCONFIG_ALLCONFIG=/build.config
grep '^CONFIG_' /build.config | while read -r option; do
  grep -qxF "$option" .config || { echo "the kernel's configuration dropped $option" >&2; exit 1; }
done
make -j"$1" bzImage
`;

/** The lab's kernel: bzImage, and the configuration that it was built with. */
export function labKernelRecipe(config: string): Recipe {
  return {
    name: "kernel-lab",
    from: { version: 1, release: RELEASE, source: SOURCE, toolchain: TOOLCHAIN, config, build: BUILD },
    room: 6 * 2 ** 30,
    make: async (folder, scratch, say) => {
      const root = await buildRoot("kernel-lab", scratch, [], say);
      await writeFile(path.join(root, "build.config"), config);
      const jobs = availableParallelism();
      say(`kernel-lab: compiling with ${jobs} jobs; this takes some 10 to 30 minutes, once`);
      await buildIn(root, "kernel-lab", BUILD, say);
      const built = path.join(root, "build");
      await copyFile(path.join(built, "arch/x86/boot/bzImage"), path.join(folder, "bzImage"));
      await copyFile(path.join(built, ".config"), path.join(folder, "config"));
      const { size } = await stat(path.join(folder, "bzImage"));
      say(`kernel-lab: built, ${(size / 2 ** 20).toFixed(1)} MiB`);
    },
  };
}

/** The fragment that the kernel is built from. */
export function labKernelConfig(): Promise<string> {
  return readFile(CONFIG, "utf8");
}

/**
 * A root of its own with the kernel's source, the toolchain and `more` packages, below `scratch`.
 * @param name Of whom is spoken meanwhile.
 */
export async function buildRoot(
  name: string,
  scratch: string,
  more: readonly string[],
  say: Say,
): Promise<string> {
  await needNamespaces(name);
  const suites = [RELEASE, `${RELEASE}-updates`, `${RELEASE}-backports`];
  const packages = [SOURCE, ...TOOLCHAIN, ...more];
  const debs = await fetchPackages(path.join(scratch, "apt"), name, { suites, packages }, say);
  const root = path.join(scratch, "root");
  say(`${name}: unpacking ${debs.length} packages`);
  await unpack(debs, root);
  await rm(path.join(scratch, "apt"), { recursive: true, force: true });
  for (const place of ["proc", "dev", "build", "tmp"])
    await mkdir(path.join(root, place), { recursive: true });
  for (const [link, target] of [
    ["usr/bin/sh", "dash"],
    ["usr/bin/awk", "gawk"],
  ] as const) {
    await rm(path.join(root, link), { force: true });
    await symlink(target, path.join(root, link));
  }
  return root;
}

/** The command that runs another one in a mount and a process namespace of its own. */
function inNamespaces(): string[] {
  const user = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];
  return [...DYING, "unshare", ...user, "--mount", "--pid", "--fork", "--kill-child"];
}

/** Some containers forbid namespaces, and mounts in them: better known before hundreds of megabytes are fetched. */
export async function needNamespaces(name: string): Promise<void> {
  const [command, ...args] = [...inNamespaces(), "sh", "-c", "mount -t proc proc /proc"];
  const { status, stderr } = await run(command!, args);
  if (status === 0) return;
  throw new BifurcateError("E_GUEST_BUILD", {
    what: `build ${name} for the guest`,
    why: `it is built in mount and process namespaces, which cannot be made here: ${stderr.trim()}`,
    next: "Build it as root outside of a container (it then stands in the cache), or boot a kernel of Debian's: --kernel stock.",
  });
}

/**
 * Runs a script, given the number of jobs, in a root and a process namespace of its own: objtool reads /proc, and all
 * of it ends with us. Who is not root gets a user namespace for it.
 */
export async function buildIn(root: string, name: string, script: string, say: Say): Promise<void> {
  const enter =
    'mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && exec chroot "$1" /usr/bin/bash -c "$2" bash "$3"';
  let files = 0;
  let told = Date.now();
  const jobs = String(availableParallelism());
  const command = [...inNamespaces(), "sh", "-c", enter, "sh", root, script, jobs];
  await follow(command, (line) => {
    if (/^ +(CC|AS|LD|AR) /.test(line)) files += 1;
    if (Date.now() - told < 30_000) return;
    told = Date.now();
    say(`${name}: ${files} objects`);
  });
}
