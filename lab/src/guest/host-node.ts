// The host's own Node on a disk for the guest: it starts in a fifth of the time that Debian's takes there.

import { chmod, copyFile, mkdir, stat } from "node:fs/promises";
import path from "node:path";
import type { Recipe } from "./cache.js";
import { makeExt4 } from "./root-image.js";

/**
 * An image, node.ext4, with the Node that runs this process; null where that is in parts (a distribution's, with its
 * library beside it), or for another processor than the guest's. Whether it runs in the guest, the guest tries
 * (lab/guest/init); where it does not, Debian's stays.
 */
export async function hostNodeRecipe(tools: string): Promise<Recipe | null> {
  const built: Readonly<Record<string, unknown>> = { ...process.config.variables };
  if (process.arch !== "x64" || built["node_shared"] !== false) return null;
  const program = process.execPath;
  const { size, mtimeMs } = await stat(program);
  return {
    name: "node",
    from: { version: 1, node: process.version, size, modified: mtimeMs },
    room: 3 * size,
    make: async (folder, scratch, say) => {
      say(`node: making a disk of this Node, ${process.version}`);
      const root = path.join(scratch, "node");
      await mkdir(root);
      await copyFile(program, path.join(root, "node"));
      await chmod(path.join(root, "node"), 0o755);
      await makeExt4(tools, root, path.join(folder, "node.ext4"), 0);
    },
  };
}
