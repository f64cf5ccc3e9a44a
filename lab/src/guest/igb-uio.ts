// Builds igb_uio for the lab's kernel: a module that no kernel brings, from Debian's package of DPDK's kernel modules.

import { copyFile, rm } from "node:fs/promises";
import path from "node:path";
import { cached, provide, type Recipe, type Say } from "./cache.js";
import { RELEASE } from "./debian.js";
import { buildIn, buildRoot, labKernelConfig, labKernelRecipe, SOURCE, TOOLCHAIN } from "./lab-kernel.js";
import { must } from "./tree.js";

/** Where the module's source is. */
const PACKAGE = "dpdk-kmods-dkms";

/**
 * The kernel itself is not built again for it: there is no list of its symbols then, which modpost warns of, and the
 * kernel looks them up when it loads the module.
 */
const BUILD = `set -eu
export PATH=/usr/sbin:/usr/bin LC_ALL=C HOME=/ KBUILD_BUILD_USER=bifurcate KBUILD_BUILD_HOST=lab
cd /build
echo "unpacking the source"
tar -xf /usr/src/${SOURCE}.tar.xz --strip-components=1
cp /build.config .config
make -j"$1" modules_prepare
cp -r /usr/src/dpdk-kmods-* /module
make -j"$1" M=/module KBUILD_MODPOST_WARN=1 modules
`;

/** The module for the kernel that is in `kernel`, a folder of the cache. */
export function igbUioRecipe(kernel: string): Recipe {
  return {
    name: "igb-uio",
    // The kernel's folder is named after all that the kernel is made from.
    from: { version: 1, release: RELEASE, kernel: path.basename(kernel), package: PACKAGE, TOOLCHAIN, BUILD },
    room: 4 * 2 ** 30,
    make: async (folder, scratch, say) => {
      const root = await buildRoot("igb-uio", scratch, [PACKAGE], say);
      await copyFile(path.join(kernel, "config"), path.join(root, "build.config"));
      say("igb-uio: compiling; this takes a minute or two, once");
      await buildIn(root, "igb-uio", BUILD, say);
      await copyFile(path.join(root, "module/igb_uio.ko"), path.join(folder, "igb_uio.ko"));
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** Where a guest with the lab's kernel has the module, when it was in the cache as that booted; a place in the project. */
const PLACE = "lab/guest/igb_uio.ko";

/**
 * Adds the module to the packed project, where it is in the cache.
 * @param kernel The kernel's folder in the cache.
 */
export async function addIgbUio(kernel: string, project: string): Promise<void> {
  const folder = await cached(igbUioRecipe(kernel));
  if (folder === null) return;
  const file = path.basename(PLACE);
  const place = ["--transform", `s,^${file}$,${PLACE},`, "-C", folder, file];
  await must("tar", ["--append", "--file", project, "--owner=root:0", "--group=root:0", ...place]);
}

/**
 * The file of the module, from the cache or made.
 * @throws BifurcateError what provide() throws.
 */
export async function igbUioModule(say: Say): Promise<string> {
  const kernel = await provide(labKernelRecipe(await labKernelConfig()), say);
  return path.join(await provide(igbUioRecipe(kernel), say), "igb_uio.ko");
}
