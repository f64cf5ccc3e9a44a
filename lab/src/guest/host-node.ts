// The host's own Node on a disk for the guest: it starts in a fifth of the time that Debian's takes there.

import { chmod, copyFile, mkdir, stat } from "node:fs/promises";
import path from "node:path";
import { messageOf } from "@bifurcate/control/errors";
import { provide, type Recipe, type Say } from "./cache.js";
import { makeExt4 } from "./root-image.js";

/** Its name in the cache. */
export const HOST_NODE = "node";

/** The program that runs: its name may by now be another's, or nobody's. */
const PROGRAM = "/proc/self/exe";

/**
 * An image, node.ext4, with the Node that runs this process; null where that is in parts (a distribution's, with its
 * library beside it), or for another processor than the guest's. Whether it runs in the guest, the guest tries
 * (lab/guest/init); where it does not, Debian's stays.
 */
export async function hostNodeRecipe(tools: string): Promise<Recipe | null> {
  const built: Readonly<Record<string, unknown>> = { ...process.config.variables };
  if (process.arch !== "x64" || built["node_shared"] !== false) return null;
  const { size, mtimeMs } = await stat(PROGRAM);
  return {
    name: HOST_NODE,
    from: { version: 1, node: process.version, size, modified: mtimeMs },
    room: 3 * size,
    make: async (folder, scratch, say) => {
      say(`node: making a disk of this Node, ${process.version}`);
      const root = path.join(scratch, "node");
      await mkdir(root);
      await copyFile(PROGRAM, path.join(root, "node"));
      await chmod(path.join(root, "node"), 0o755);
      await makeExt4(tools, root, path.join(folder, "node.ext4"), 0);
    },
  };
}

/**
 * The image's path; null where there is none. A guest does without: what goes wrong is said, and ends nothing, e.g. with
 * a cache that can only be read, or that has no room left.
 */
export async function hostNode(tools: string, say: Say, thorough: boolean): Promise<string | null> {
  try {
    const recipe = await hostNodeRecipe(tools);
    return recipe === null ? null : path.join(await provide(recipe, say, thorough), "node.ext4");
  } catch (error) {
    say(`node: ${messageOf(error)}; the guest has Debian's, which starts slowly`);
    return null;
  }
}
