// For tests in the lab's guest: puts a program of theirs there, from its source.

import path from "node:path";
import { fileURLToPath } from "node:url";
import { bundleScript } from "@bifurcate/lab/guest/bundle";
import type { Guest } from "@bifurcate/lab/guest/guest";

/** The checkout that is tested. */
const CHECKOUT = fileURLToPath(new URL("../../..", import.meta.url));

/**
 * Puts a program into the guest with all that it imports, as a plain script, which starts in half the time of a module.
 * @param source Its path in the checkout; it awaits nothing at its top.
 * @returns Its path in the guest.
 */
export async function putProgram(guest: Guest, source: string): Promise<string> {
  const file = `/tmp/${path.parse(source).name}.cjs`;
  const input = await bundleScript(CHECKOUT, path.join(CHECKOUT, source));
  await guest.run(["sh", "-c", `cat > ${file} && chmod 644 ${file}`], { input });
  return file;
}
