// Debian's own kernels for the guest: the image, all its modules on a disk of their own, and the few modules that
// find that disk in an initial RAM disk.

import { copyFile, mkdir, readFile, rename, rm, symlink } from "node:fs/promises";
import path from "node:path";
import { BifurcateError } from "@bifurcate/control/errors";
import { writeCpio } from "./cpio.js";
import { fetchPackages, OLD_RELEASE, RELEASE, unpack, type PackageSet } from "./debian.js";
import type { Recipe, Say } from "./cache.js";
import type { KernelName } from "./machine.js";
import { makeExt4 } from "./root-image.js";
import { only, runInTree } from "./tree.js";

/** Where each kernel comes from. */
const SUITES: Readonly<Record<Exclude<KernelName, "lab">, string>> = {
  stock: `${RELEASE}-backports`,
  "6.12": RELEASE,
  "6.1": OLD_RELEASE,
};

/** Modules that the root file system needs; what they depend on is added. */
const BOOT_MODULES = ["virtio_pci", "virtio_blk", "ext4"];

/** Implementations that ext4 asks the crypto layer for by name, where they are modules (modules.softdep). */
const SOFT_MODULES = ["crc32c_generic"];

/** What is fetched: a kernel's package asks for what installs it on a machine too, and that is not needed here. */
const PARTS = /^(linux-(image|binary|modules|base)-\d|busybox-static$)/;

/** First program of the initial RAM disk: it mounts the real root file system and the modules in it. */
const INIT = `#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules.order); do insmod /$module || echo "cannot load $module"; done
mount -t ext4 /dev/vda /disk && mount -t ext4 -o ro /dev/vdc /disk/usr/lib/modules || exit 1
mount --move /dev /disk/dev
umount /proc
exec switch_root /disk /sbin/init
`;

/** A kernel of Debian's with its modules: vmlinuz, initrd, modules.ext4. */
export function stockKernelRecipe(kernel: Exclude<KernelName, "lab">, tools: string): Recipe {
  const suite = SUITES[kernel];
  return {
    name: `kernel-${kernel}`,
    from: {
      version: 1,
      suite,
      package: "linux-image-amd64",
      parts: PARTS.source,
      modules: [...SOFT_MODULES, ...BOOT_MODULES],
      init: INIT,
    },
    room: 3 * 2 ** 30,
    make: async (folder, scratch, say) => {
      const root = path.join(scratch, "root");
      const set: PackageSet = {
        suites: kernel === "stock" ? [RELEASE, suite] : [suite],
        packages: ["linux-image-amd64", "busybox-static"],
        ...(kernel === "stock" ? { prefer: suite } : {}),
        only: PARTS,
      };
      await unpack(await fetchPackages(path.join(scratch, "apt"), `kernel-${kernel}`, set, say), root);
      await layOut(root, folder, tools, say);
    },
  };
}

async function layOut(root: string, folder: string, tools: string, say: Say): Promise<void> {
  // Before the merge of /usr, Debian's kernels had their modules in /lib.
  const modules = path.join(root, "modules");
  const versions = await only(root, /^lib$/).then(
    (lib) => path.join(lib, "modules"),
    () => path.join(root, "usr/lib/modules"),
  );
  await rename(versions, modules);
  const tree = await only(modules, /^\d/);
  const release = path.basename(tree);
  say(`kernel ${release}: making its files`);
  await mkdir(path.join(root, "base/lib"), { recursive: true });
  await symlink("../../modules", path.join(root, "base/lib/modules"));
  await runInTree(tools, "usr/sbin/depmod", ["-b", path.join(root, "base"), release]);
  // Since 7.2 the image stands beside the modules.
  const image = await only(path.join(root, "boot"), /^vmlinuz-/).catch(() => path.join(tree, "vmlinuz"));
  await copyFile(image, path.join(folder, "vmlinuz"));
  await rm(path.join(tree, "vmlinuz"), { force: true });
  await makeInitrd(root, tree, tools, path.join(folder, "initrd"));
  await makeExt4(tools, modules, path.join(folder, "modules.ext4"), 8);
}

/** Modules to load, each after those it needs, as modules.dep says (modprobe(8)). */
async function inOrder(tree: string, wanted: readonly string[]): Promise<string[]> {
  const nameOf = (file: string): string =>
    path
      .basename(file)
      .replace(/\.ko(\.[a-z0-9]+)?$/, "")
      .replace(/-/g, "_");
  const needs = new Map<string, { file: string; needs: string[] }>();
  for (const line of (await readFile(path.join(tree, "modules.dep"), "utf8")).split("\n").filter(Boolean)) {
    const [file, rest] = line.split(":") as [string, string];
    needs.set(nameOf(file), { file, needs: rest.split(" ").filter(Boolean).map(nameOf) });
  }
  const builtin = (await readFile(path.join(tree, "modules.builtin"), "utf8")).split("\n").map(nameOf);
  const files: string[] = [];
  const visit = (name: string): void => {
    const module = needs.get(name);
    if (module === undefined) {
      if (builtin.includes(name) || SOFT_MODULES.includes(name)) return;
      throw new BifurcateError("E_GUEST_BUILD", {
        what: `find the module ${name}`,
        why: "the kernel has none",
      });
    }
    module.needs.forEach(visit);
    if (!files.includes(module.file)) files.push(module.file);
  };
  wanted.forEach(visit);
  return files;
}

async function makeInitrd(root: string, tree: string, tools: string, initrd: string): Promise<void> {
  const files = await inOrder(tree, [...SOFT_MODULES, ...BOOT_MODULES]);
  const entries: Parameters<typeof writeCpio>[1] = [];
  for (const folder of ["bin", "dev", "proc", "disk"]) entries.push({ name: folder, mode: 0o040755 });
  const busybox = await readFile(path.join(root, "usr/bin/busybox")).catch(() =>
    readFile(path.join(root, "bin/busybox")),
  );
  entries.push({ name: "bin/busybox", mode: 0o100755, contents: busybox });
  for (const applet of ["sh", "mount", "umount", "insmod", "cat", "echo", "switch_root"]) {
    entries.push({ name: `bin/${applet}`, mode: 0o120777, contents: Buffer.from("busybox") });
  }
  const order: string[] = [];
  for (const file of files) {
    const name = path.basename(file).replace(/\.xz$/, "");
    order.push(name);
    entries.push({ name, mode: 0o100644, contents: await plainModule(path.join(tree, file), tools) });
  }
  entries.push({ name: "modules.order", mode: 0o100644, contents: Buffer.from(`${order.join("\n")}\n`) });
  entries.push({ name: "init", mode: 0o100755, contents: Buffer.from(INIT) });
  await writeCpio(initrd, entries);
}

/** A module's bytes, uncompressed: busybox's insmod gives them to the kernel as they are. */
async function plainModule(file: string, tools: string): Promise<Buffer> {
  if (!file.endsWith(".xz")) return readFile(file);
  const copy = `${file}.plain.xz`;
  await copyFile(file, copy);
  await runInTree(tools, "usr/bin/xz", ["--decompress", "--force", copy]);
  return readFile(copy.replace(/\.xz$/, ""));
}
