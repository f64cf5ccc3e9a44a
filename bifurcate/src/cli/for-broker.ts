// What root prepares so that the broker needs no root: its BPF file system and its folders.

import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { BifurcateError, messageOf } from "@bifurcate/control";
import { accounts } from "@bifurcate/control/broker/accounts";

/** BPF_FS_MAGIC (include/uapi/linux/magic.h). */
const BPF_FS = 0xcafe4a11;

/** Whose they are, and where. */
export interface BrokerFolders {
  /** The broker's user: a name, or a number. */
  readonly user: string;
  /** Where to mount the BPF file system. */
  readonly bpf: string;
  /** Where its socket and records are. */
  readonly run: string;
}

/** Prepares them; gives what was done. @throws E_NOT_PRIVILEGED, E_BAD_OPTION, E_SYSTEM */
export function prepare({ user, bpf, run }: BrokerFolders): string[] {
  const what = "prepare the broker's folders";
  if (process.geteuid?.() !== 0) {
    throw new BifurcateError("E_NOT_PRIVILEGED", { what, why: "it is not root", next: "Run it with sudo." });
  }
  const uid = accounts().user(user);
  if (uid === null) {
    const next = `Make it: useradd --system --user-group --no-create-home ${user}`;
    throw new BifurcateError("E_BAD_OPTION", {
      what: `read --user '${user}'`,
      why: "there is no such user",
      next,
    });
  }
  try {
    mkdirSync(bpf, { recursive: true, mode: 0o711 });
    const mounted = Number(statfsSync(bpf).type) >>> 0 === BPF_FS;
    if (!mounted) execFileSync("mount", ["-t", "bpf", "-o", "mode=0711", "bpf", bpf], { stdio: "pipe" });
    const names = join(bpf, "names");
    const had = existsSync(names);
    mkdirSync(names, { recursive: true, mode: 0o700 });
    chownSync(names, uid, -1 >>> 0);
    mkdirSync(run, { recursive: true, mode: 0o755 });
    chmodSync(run, 0o755);
    chownSync(run, uid, -1 >>> 0);
    return [
      mounted ? `${bpf}: a BPF file system, as before` : `${bpf}: a BPF file system, mounted`,
      `${names}: ${had ? "as before" : "made"}, the broker's (user ${uid})`,
      `${run}: the broker's (user ${uid})`,
    ];
  } catch (thrown) {
    throw new BifurcateError("E_SYSTEM", { what, why: messageOf(thrown), cause: thrown });
  }
}
