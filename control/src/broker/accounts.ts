// Users and groups by name: /etc/passwd and /etc/group. Accounts from elsewhere are written as numbers.
import { readFileSync } from "node:fs";

/** Finds numbers of names; null where there is no such name. */
export interface Accounts {
  user(name: string): number | null;
  group(name: string): number | null;
}

function numbers(path: string): Map<string, number> {
  let text = "";
  try {
    text = readFileSync(path, "utf8");
  } catch {
    // No such file: only numbers are known.
  }
  // passwd(5) and group(5): name, password, number.
  const rows = text.split("\n").map((line) => line.split(":"));
  return new Map(
    rows.flatMap(([name, , id]) =>
      name !== undefined && id !== undefined && /^\d+$/.test(id) ? [[name, Number(id)] as const] : [],
    ),
  );
}

/** The accounts of this machine, as they are now. */
export function accounts(): Accounts {
  const users = numbers("/etc/passwd");
  const groups = numbers("/etc/group");
  const find = (from: Map<string, number>, name: string): number | null => {
    if (/^\d{1,10}$/.test(name)) return Number(name) <= 0xffff_fffe ? Number(name) : null;
    return from.get(name) ?? null;
  };
  return { user: (name) => find(users, name), group: (name) => find(groups, name) };
}
