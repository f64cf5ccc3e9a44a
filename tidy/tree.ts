// The files that git tracks (or would track), as the tidy tests read them.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

export interface TrackedFile {
  readonly path: string;
  readonly text: string;
}

/** Tracked and untracked-but-not-ignored files whose path matches, in path order. */
export function files(pattern: RegExp): TrackedFile[] {
  const listed = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "-z"], { cwd: root });
  return listed
    .toString()
    .split("\0")
    .filter((name) => name !== "" && pattern.test(name) && existsSync(path.join(root, name)))
    .sort()
    .map((name) => ({ path: name, text: readFileSync(path.join(root, name), "utf8") }));
}

/** Whether what a page links to is there, a file or a folder. */
export function exists(page: string, target: string): boolean {
  return existsSync(path.join(root, path.dirname(page), target));
}

/** Modules that a TypeScript file imports, relative ones resolved to a path in the tree. */
export function imports(file: TrackedFile): string[] {
  const specifiers = [...file.text.matchAll(/(?:^|\n)\s*(?:import|export)[^;'"]*?from\s+["']([^"']+)["']/g)]
    .concat([...file.text.matchAll(/import\(\s*["']([^"']+)["']\s*\)/g)])
    .map((match) => match[1]!);
  return specifiers.map((name) =>
    name.startsWith(".") ? path.posix.normalize(path.posix.join(path.posix.dirname(file.path), name)) : name,
  );
}
