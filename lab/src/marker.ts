// Remembers which labs were made here, so that one that a crash left behind can be found and removed.

import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { BifurcateError, errnoOf, messageOf } from "@bifurcate/control/errors";

/** What is known of a lab before its first namespace is made. */
export interface Marker {
  readonly name: string;
  readonly namespaces: readonly string[];
  /** When it was made, ISO 8601. */
  readonly made: string;
}

/** Folder of the markers. It lies on tmpfs, as the namespaces do not outlive a reboot either. */
export function markerFolder(): string {
  return path.join(process.env["BIFURCATE_STATE_DIR"] ?? "/run/bifurcate", "lab");
}

function fileOf(name: string): string {
  return path.join(markerFolder(), `${name}.json`);
}

/** Writes a marker. @throws BifurcateError E_LAB when a lab of that name has one. */
export async function writeMarker(marker: Marker): Promise<void> {
  try {
    await mkdir(markerFolder(), { recursive: true, mode: 0o700 });
    await writeFile(fileOf(marker.name), `${JSON.stringify(marker)}\n`, { flag: "wx" });
  } catch (error) {
    throw new BifurcateError("E_LAB", {
      what: `make the lab ${marker.name}`,
      why: errnoOf(error) === "EEXIST" ? "a lab of that name is up" : messageOf(error),
      ...(errnoOf(error) === "EEXIST"
        ? { next: `Use it, or remove it: bifurcate lab down ${marker.name}` }
        : {}),
      cause: error,
    });
  }
}

/** Removes a marker, if there is one. */
export async function removeMarker(name: string): Promise<void> {
  await rm(fileOf(name), { force: true });
}

/** All markers. One that cannot be read counts for its name alone. */
export async function readMarkers(): Promise<Marker[]> {
  let names: string[];
  try {
    names = await readdir(markerFolder());
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
  const markers = names
    .filter((file) => file.endsWith(".json"))
    .map(async (file): Promise<Marker> => {
      const name = file.slice(0, -".json".length);
      try {
        const read = JSON.parse(await readFile(fileOf(name), "utf8")) as Partial<Marker>;
        const namespaces = (read.namespaces ?? []).filter((netns) => typeof netns === "string");
        return { name, namespaces, made: read.made ?? "" };
      } catch {
        return { name, namespaces: [], made: "" };
      }
    });
  return Promise.all(markers);
}
