// Makes one plain JavaScript file of a handler file and all that it imports, so that every Node runs the same.

import { mkdtemp, readdir, readlink, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { BifurcateError } from "@bifurcate/control/errors";
import { isAlive, ownIdentity } from "@bifurcate/control/facts/processes";
import type { BuildFailure } from "esbuild";

/** A bundled handler file, ready for workers to import. */
export interface HandlerBundle {
  /** URL of the bundle. */
  readonly url: string;
  /** Deletes it. */
  dispose(): Promise<void>;
}

/**
 * Bundles a handler file: TypeScript or JavaScript, with anything it imports. `import ... from "bifurcate"` in it
 * means this very package, wherever the file lies.
 * @param file Its path.
 * @throws E_HANDLER_FILE with esbuild's places and messages.
 */
export async function bundleHandler(file: string): Promise<HandlerBundle> {
  const entry = path.resolve(file);
  const what = `load the handler file ${file}`;
  const found = await stat(entry).catch((cause: unknown) => {
    throw new BifurcateError("E_HANDLER_FILE", { what, why: "there is no such file", cause });
  });
  if (!found.isFile()) throw new BifurcateError("E_HANDLER_FILE", { what, why: "it is not a file" });
  const code = await bundle(entry, what);
  await sweepBundles();
  const folder = await mkdtemp(path.join(tmpdir(), await ownPrefix()));
  const out = path.join(folder, `${path.parse(entry).name}.mjs`);
  await writeFile(out, code, { mode: 0o600 });
  return { url: pathToFileURL(out).href, dispose: () => rm(folder, { recursive: true, force: true }) };
}

/** Bundles' folders bear their maker's name: "bifurcate-handler-PIDNAMESPACE-PID-STARTTIME-". */
async function ownPrefix(): Promise<string> {
  const { pid, startTime } = ownIdentity();
  return `bifurcate-handler-${await pidNamespace()}-${pid}-${startTime}-`;
}

/** The inode of the namespace in which process numbers mean what they mean here, pid_namespaces(7). */
async function pidNamespace(): Promise<string> {
  const link = await readlink("/proc/self/ns/pid").catch(() => "");
  return /\d+/.exec(link)?.[0] ?? "0";
}

/** Deletes what processes have left that were killed while their workers loaded a bundle. */
async function sweepBundles(): Promise<void> {
  const namespace = await pidNamespace();
  const names = await readdir(tmpdir()).catch(() => []);
  for (const name of names) {
    const [, where, pid, startTime] = /^bifurcate-handler-(\d+)-(\d+)-(\d+)-\w+$/.exec(name) ?? [];
    if (startTime === undefined || where !== namespace || isAlive({ pid: Number(pid), startTime })) continue;
    // Another user's may not be ours to delete.
    await rm(path.join(tmpdir(), name), { recursive: true, force: true }).catch(() => undefined);
  }
}

async function bundle(entry: string, what: string): Promise<Uint8Array> {
  // Loaded where it is needed: it would be a fifth of the start of every command.
  const { build } = await import("esbuild");
  try {
    const result = await build({
      entryPoints: [entry],
      bundle: true,
      write: false,
      platform: "node",
      format: "esm",
      target: "node20",
      sourcemap: "inline",
      // The map names files as seen from here; the root must end in a slash, or its last folder is left out.
      absWorkingDir: path.dirname(entry),
      sourceRoot: `${path.dirname(entry)}/`,
      logLevel: "silent",
      define: { "import.meta.url": JSON.stringify(pathToFileURL(entry).href) },
      banner: {
        js: 'import { createRequire as $bfRequire } from "node:module"; const require = $bfRequire(import.meta.url);',
      },
      plugins: [
        {
          name: "bifurcate-itself",
          setup(setup) {
            const itself = fileURLToPath(new URL("./index.js", import.meta.url));
            setup.onResolve({ filter: /^bifurcate$/ }, () => ({
              path: pathToFileURL(itself).href,
              external: true,
            }));
          },
        },
      ],
    });
    return result.outputFiles[0]!.contents;
  } catch (cause) {
    throw new BifurcateError("E_HANDLER_FILE", { what, why: messages(cause, path.dirname(entry)), cause });
  }
}

/** @param folder What esbuild's paths are relative to; ours are relative to where the user is. */
function messages(failure: unknown, folder: string): string {
  const errors = (failure as Partial<BuildFailure>).errors;
  if (!Array.isArray(errors) || errors.length === 0) return String(failure);
  return (failure as BuildFailure).errors
    .map(({ text, location }) => {
      if (location === null) return text;
      const file = path.relative("", path.resolve(folder, location.file));
      return `${file}:${location.line}:${location.column + 1}: ${text}`;
    })
    .join("; ");
}
