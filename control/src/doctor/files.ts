// The files by which a machine tells about itself (/proc, /sys, /dev), as a value: tests put a fake machine in its place.
import { existsSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { gunzipSync } from "node:zlib";

/** A file system to read. Nothing here fails: what is not there, or not to be read, is null, false or empty. */
export interface Files {
  /** The text of a file; one whose name ends in .gz is unpacked. */
  read(path: string): string | null;
  /** The names in a folder. */
  list(path: string): string[];
  exists(path: string): boolean;
  /** The last part of where a symbolic link leads. */
  target(path: string): string | null;
}

/** The machine's own. */
export const machineFiles: Files = {
  read: (path) =>
    attempt(() => {
      const bytes = readFileSync(path);
      return (path.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8");
    }),
  list: (path) => attempt(() => readdirSync(path)) ?? [],
  exists: (path) => existsSync(path),
  target: (path) => attempt(() => readlinkSync(path).split("/").at(-1) ?? null),
};

function attempt<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}
