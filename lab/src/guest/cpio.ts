// Writes an initial RAM disk: a cpio archive in the "newc" form (Documentation/driver-api/early-userspace/buffer-format.rst).

import { writeFile } from "node:fs/promises";

/** A file, folder or symbolic link; a link's contents are its target. */
export interface CpioEntry {
  readonly name: string;
  /** Type and permissions, as in st_mode (inode(7)). */
  readonly mode: number;
  readonly contents?: Buffer;
}

const hex = (value: number): string => value.toString(16).padStart(8, "0");

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}

function record(entry: CpioEntry, inode: number): Buffer {
  const contents = entry.contents ?? Buffer.alloc(0);
  const name = Buffer.from(`${entry.name}\0`);
  // inode, mode, uid, gid, links, time, size, four device numbers, length of the name, no checksum.
  const fields = [inode, entry.mode, 0, 0, 1, 0, contents.length, 0, 0, 0, 0, name.length, 0];
  const header = Buffer.from(`070701${fields.map(hex).join("")}`);
  return Buffer.concat([padded(Buffer.concat([header, name])), padded(contents)]);
}

/** Writes the archive; folders come before what is in them. */
export async function writeCpio(file: string, entries: CpioEntry[]): Promise<void> {
  const records = entries.map((entry, n) => record(entry, n + 1));
  await writeFile(file, Buffer.concat([...records, record({ name: "TRAILER!!!", mode: 0 }, 0)]));
}
