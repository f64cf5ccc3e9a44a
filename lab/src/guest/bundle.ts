// Bundles the project's programs for the guest: under emulation a program of 260 files spends most of its start on finding and opening them.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";

/** Where the guest has the checkout. */
const GUEST_CHECKOUT = "/bifurcate";

/** Folders with what is started or imported by name; everything else comes by way of these. */
const PLACES: readonly (readonly [folder: string, names: RegExp])[] = [
  ["bifurcate/dist", /^(index|worker|broker)\.js$/],
  ["bifurcate/dist/cli", /^main\.js$/],
  ["bifurcate/dist/compare", /-main\.js$/],
  ["bifurcate/dist/foreign", /^inside\.js$/],
  ["control/dist", /^(index|errors)\.js$/],
  ["control/dist/card", /\.js$/],
  ["control/dist/guardian", /^main\.js$/],
  ["lab/dist", /^index\.js$/],
  ["lab/dist/traffic", /\.js$/],
];

function entries(checkout: string): string[] {
  return PLACES.flatMap(([folder, names]) => {
    const at = path.join(checkout, folder);
    const found = existsSync(at) ? readdirSync(at).filter((name) => names.test(name)) : [];
    return found.map((name) => path.join(at, name));
  });
}

/**
 * Writes the bundles into `folder`, each under the path that its entry has in the checkout, so that they take the
 * entries' places. What several share is in common files: a class is the same one for all of them, as before.
 */
export async function bundleProject(checkout: string, folder: string): Promise<void> {
  const { outputFiles } = await build({
    absWorkingDir: checkout,
    entryPoints: entries(checkout),
    outbase: checkout,
    outdir: folder,
    chunkNames: "bifurcate/dist/shared/[hash]",
    bundle: true,
    splitting: true,
    write: false,
    format: "esm",
    platform: "node",
    // Half of what Node would read is comments; names stay, for messages.
    minifyWhitespace: true,
    minifySyntax: true,
    target: "node20",
    define: { "import.meta.url": "$url" },
    external: ["@bifurcate/addon", "esbuild"],
    banner: {
      js: 'import { createRequire as $require } from "node:module"; const require = $require(import.meta.url);',
    },
    plugins: [
      {
        // A file beside a module is found from where the module was, not from the bundle.
        name: "where a module was",
        setup: (bundler) => {
          bundler.onLoad({ filter: /\/(bifurcate|control|lab)\/dist\/.*\.js$/ }, ({ path: file }) => {
            const url = pathToFileURL(path.join(GUEST_CHECKOUT, path.relative(checkout, file))).href;
            return { contents: `const $url = ${JSON.stringify(url)};\n${readFileSync(file, "utf8")}` };
          });
        },
      },
    ],
  });
  for (const { path: file, contents } of outputFiles) {
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, contents);
  }
}
