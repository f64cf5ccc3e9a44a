// Packs the built project for the guest: what running it takes, and nothing else.

import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { BifurcateError } from "@bifurcate/control/errors";
import { bundleProject } from "./bundle.js";
import { must } from "./tree.js";

/** The checkout, whose layout the guest has under /bifurcate. */
const checkout = fileURLToPath(new URL("../../..", import.meta.url));

const PACKAGES = ["addon", "bifurcate", "control", "lab"];

/** Packages from the registry that ours need to run, those included that they need themselves. */
function dependencies(): string[] {
  const found = new Set<string>();
  const visit = (folder: string): void => {
    const manifest = JSON.parse(readFileSync(path.join(checkout, folder, "package.json"), "utf8")) as {
      dependencies?: Record<string, string>;
      optionalDependencies?: Record<string, string>;
    };
    for (const name of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })) {
      const place = path.join("node_modules", name);
      if (name.startsWith("@bifurcate/") || found.has(place) || !existsSync(path.join(checkout, place)))
        continue;
      found.add(place);
      visit(place);
    }
  };
  PACKAGES.forEach(visit);
  return [...found].sort();
}

/**
 * Writes the project as a tar archive.
 * @throws BifurcateError E_NO_ADDON when it is not built.
 */
export async function packProject(file: string): Promise<void> {
  if (!existsSync(path.join(checkout, "addon/bifurcate.node"))) {
    throw new BifurcateError("E_NO_ADDON", {
      what: "put the project into the guest",
      why: "addon/bifurcate.node is not there, so it is not built",
    });
  }
  const places = [
    ...PACKAGES,
    "examples",
    "package.json",
    "node_modules/bifurcate",
    "node_modules/@bifurcate",
  ];
  const without = [
    ...PACKAGES.map((name) => `--exclude=${name}/src`),
    "--no-anchored",
    "--exclude=*.d.ts",
    "--exclude=*.js.map",
  ];
  const bundles = mkdtempSync(`${file}-bundles-`);
  try {
    // It becomes the mode of /bifurcate: programs of other users than root are run from there too.
    chmodSync(bundles, 0o755);
    await bundleProject(checkout, bundles);
    // What comes later in an archive takes the place of what came before under the same name.
    const files = [...places, ...dependencies(), "-C", bundles, "."];
    await must("tar", ["-C", checkout, "--anchored", ...without, "-cf", file, ...files]);
  } finally {
    rmSync(bundles, { recursive: true, force: true });
  }
}
