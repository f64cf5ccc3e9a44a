// Brings together what a machine needs to boot: QEMU, the root file system, a kernel; from the cache where it is
// whole, from Debian's archive where it is not.

import path from "node:path";
import { entryFolder, provide, sweepCache, type Recipe, type Say } from "./cache.js";
import { fetchPackages, RELEASE, unpack } from "./debian.js";
import type { BootOptions } from "./guest.js";
import { HOST_NODE, hostNode, hostNodeRecipe } from "./host-node.js";
import { addIgbUio, igbUioRecipe } from "./igb-uio.js";
import { labKernelConfig, labKernelRecipe } from "./lab-kernel.js";
import { KERNELS, type KernelName } from "./machine.js";
import { packProject } from "./project.js";
import { rootRecipe } from "./root-image.js";
import { stockKernelRecipe } from "./stock-kernel.js";
import { inTree } from "./tree.js";

/** QEMU, and what makes images; they run through this tree's own loader. */
const TOOLS = ["qemu-system-x86", "e2fsprogs", "kmod", "xz-utils", "ipxe-qemu", "seabios"];

const toolsRecipe: Recipe = {
  name: "qemu",
  from: { version: 1, release: RELEASE, packages: TOOLS },
  room: 2 ** 30,
  make: async (folder, scratch, say) => {
    const suites = [RELEASE, `${RELEASE}-updates`];
    const debs = await fetchPackages(path.join(scratch, "apt"), "qemu", { suites, packages: TOOLS }, say);
    say(`qemu: unpacking ${debs.length} packages`);
    await unpack(debs, folder);
  },
};

/**
 * Everything that a boot with this kernel needs.
 * @param thorough Reads all of the cache again instead of trusting what has not been touched.
 * @throws BifurcateError E_GUEST_FETCH, E_GUEST_CACHE, E_GUEST_BUILD, E_MISSING_TOOL.
 */
export async function provision(kernel: KernelName, say: Say, thorough = false): Promise<BootOptions> {
  await sweepCache();
  const tools = await provide(toolsRecipe, say, thorough);
  const root = path.join(await provide(rootRecipe(tools), say, thorough), "root.ext4");
  const node = await hostNode(tools, say, thorough);
  const disks = { root, ...(node === null ? {} : { node }) };
  const firmware = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];
  const qemu = [
    ...inTree(tools, "usr/bin/qemu-system-x86_64"),
    ...firmware.flatMap((folder) => ["-L", path.join(tools, folder)]),
  ];
  if (kernel === "lab") {
    const entry = await provide(labKernelRecipe(await labKernelConfig()), say, thorough);
    const packed = async (file: string): Promise<void> => {
      await packProject(file);
      await addIgbUio(entry, file);
    };
    return { qemu, packProject: packed, files: { ...disks, kernel: path.join(entry, "bzImage") } };
  }
  const entry = await provide(stockKernelRecipe(kernel, tools), say, thorough);
  const at = (name: string): string => path.join(entry, name);
  return {
    qemu,
    packProject,
    files: { ...disks, kernel: at("vmlinuz"), initrd: at("initrd"), modules: at("modules.ext4") },
  };
}

/** Everything that guests of all kernels are made of now. */
export async function allRecipes(): Promise<readonly Pick<Recipe, "name" | "from">[]> {
  const tools = entryFolder(toolsRecipe);
  const lab = labKernelRecipe(await labKernelConfig());
  const stock = KERNELS.filter((kernel) => kernel !== "lab").map((kernel) =>
    stockKernelRecipe(kernel, tools),
  );
  const node = await hostNodeRecipe(tools).catch(() => null);
  // Those of other Nodes are superseded too where this one is not put into guests.
  const common = [toolsRecipe, rootRecipe(tools), node ?? { name: HOST_NODE, from: null }];
  return [...common, lab, igbUioRecipe(entryFolder(lab)), ...stock];
}
