// Bundles the project's programs for the guest: under emulation a program of 260 files spends most of its start on finding and opening them.

import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { build, type BuildOptions, type BuildResult } from "esbuild";

/** Where the guest has the checkout. */
const GUEST_CHECKOUT = "/bifurcate";

/** Folders with what is started or imported by name; everything else comes by way of these. */
const PLACES: readonly (readonly [folder: string, names: RegExp])[] = [
  ["bifurcate/dist", /^(index|worker)\.js$/],
  ["bifurcate/dist/compare", /-main\.js$/],
  ["bifurcate/dist/foreign", /^inside\.js$/],
  ["control/dist", /^(index|errors)\.js$/],
  ["control/dist/card", /\.js$/],
  ["lab/dist", /^index\.js$/],
  ["lab/dist/traffic", /\.js$/],
];

/**
 * Programs that are processes of their own, each a plain script (CommonJS): under emulation Node's loader of modules
 * takes as long as all the rest of a start.
 */
const PROGRAMS: readonly { readonly from: string; readonly name: string }[] = [
  { from: "bifurcate/dist/cli/main.js", name: "bifurcate/bin/bifurcate.mjs" },
  { from: "bifurcate/dist/broker.js", name: "bifurcate/bin/bifurcated.mjs" },
  { from: "control/dist/guardian/main.js", name: "control/dist/guardian/main.js" },
  { from: "lab/dist/traffic/datagrams.js", name: "lab/dist/traffic/datagrams.js" },
  { from: "lab/dist/traffic/kernel-server.js", name: "lab/dist/traffic/kernel-server.js" },
];

/** Where they stand: a folder of its own, whose package.json says that they are scripts. Their names are links to them. */
const PROGRAMS_FOLDER = "bifurcate/dist/programs";

function entries(checkout: string): string[] {
  const scripts = new Set(PROGRAMS.map(({ name }) => path.join(checkout, name)));
  return PLACES.flatMap(([folder, names]) => {
    const at = path.join(checkout, folder);
    const found = existsSync(at) ? readdirSync(at).filter((name) => names.test(name)) : [];
    return found.map((name) => path.join(at, name)).filter((file) => !scripts.has(file));
  });
}

/**
 * Writes the bundles into `folder`, each under the path that its entry has in the checkout, so that they take the
 * entries' places. What several share is in common files: a class is the same one for all of them, as before.
 */
export async function bundleProject(checkout: string, folder: string): Promise<void> {
  const modules = await build({
    ...common(checkout),
    entryPoints: entries(checkout),
    outbase: checkout,
    outdir: folder,
    chunkNames: "bifurcate/dist/shared/[hash]",
    splitting: true,
    format: "esm",
    banner: {
      js: 'import { createRequire as $require } from "node:module"; const require = $require(import.meta.url);',
    },
  });
  write(modules);
  const programs = await build({
    ...common(checkout),
    entryPoints: PROGRAMS.map(({ from }, at) => ({ in: path.join(checkout, from), out: String(at) })),
    outdir: path.join(folder, PROGRAMS_FOLDER),
    format: "cjs",
    banner: { js: "#!/usr/bin/env node" },
  });
  write(programs);
  for (const [at, { name }] of PROGRAMS.entries()) {
    const script = path.join(PROGRAMS_FOLDER, `${at}.js`);
    chmodSync(path.join(folder, script), 0o755);
    mkdirSync(path.join(folder, path.dirname(name)), { recursive: true });
    symlinkSync(path.relative(path.dirname(name), script), path.join(folder, name));
  }
  writeFileSync(path.join(folder, PROGRAMS_FOLDER, "package.json"), '{ "type": "commonjs" }\n');
}

/**
 * A program for the guest that is not part of the project, e.g. of a test, as a plain script; see PROGRAMS.
 * @param file Its source, which awaits nothing at its top.
 * @returns The text, to be put into the guest as a .cjs file.
 */
export async function bundleScript(checkout: string, file: string): Promise<string> {
  const { outputFiles } = await build({ ...common(checkout), entryPoints: [file], format: "cjs" });
  return outputFiles[0]!.text;
}

/** Writes what was built; esbuild would not say by an error's code that the disk is full. */
function write({ outputFiles }: BuildResult<{ write: false }>): void {
  for (const { path: file, contents } of outputFiles) {
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, contents);
  }
}

/** What both kinds of bundle have in common. */
function common(checkout: string): BuildOptions & { write: false } {
  return {
    absWorkingDir: checkout,
    bundle: true,
    write: false,
    platform: "node",
    // Half of what Node would read is comments; names stay, for messages.
    minifyWhitespace: true,
    minifySyntax: true,
    target: "node20",
    define: { "import.meta.url": "$url" },
    external: ["esbuild", "*.node"],
    plugins: [
      {
        // A file beside a module is found from where the module was, not from the bundle.
        name: "where a module was",
        setup: (bundler) => {
          bundler.onLoad(
            { filter: /\/((bifurcate|control|lab)\/(dist\/.*\.js|src\/.*\.ts)|addon\/index\.js)$/ },
            ({ path: file }) => {
              const built = path.relative(checkout, file).replace(/^(\w+)\/src\/(.*)\.ts$/, "$1/dist/$2.js");
              const url = pathToFileURL(path.join(GUEST_CHECKOUT, built)).href;
              // control/src/addon.ts: what it loads is bundled too, since its index is a module.
              const text = readFileSync(file, "utf8").replace(
                'createRequire(import.meta.url)("@bifurcate/addon")',
                'require("@bifurcate/addon")',
              );
              const loader = file.endsWith(".ts") ? "ts" : "js";
              return { contents: `const $url = ${JSON.stringify(url)};\n${text}`, loader };
            },
          );
        },
      },
    ],
  };
}
