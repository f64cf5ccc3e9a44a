// `bifurcate take --for-broker`: what root prepares so that the broker needs no root.

import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { BifurcateError, messageOf } from "@bifurcate/control";
import { accounts } from "@bifurcate/control/broker/accounts";
import type { Streams } from "../io.js";

const HELP = `
Examples:
  sudo bifurcate take --for-broker                    before bifurcated starts as its own user
  sudo bifurcate take --for-broker --user netbroker

It mounts a BPF file system of the broker's own at /run/bifurcate-bpf and makes /run/bifurcate, both the broker's.
Done twice, it changes nothing. The shipped systemd unit does it each time.
`;

/** BPF_FS_MAGIC (include/uapi/linux/magic.h). */
const BPF_FS = 0xcafe4a11;

interface TakeFlags {
  readonly forBroker?: true;
  readonly user: string;
  readonly bpf: string;
  readonly run: string;
}

/** The command. */
export function takeCommand(streams: Streams): Command {
  return new Command("take")
    .description("prepare, as root, what the broker is to have")
    .option("--for-broker", "the BPF file system and the folders of bifurcated")
    .option("--user <NAME>", "the broker's user: a name, or a number", "bifurcate")
    .option("--bpf <DIR>", "where to mount the BPF file system", "/run/bifurcate-bpf")
    .option("--run <DIR>", "where the broker's socket and records are", "/run/bifurcate")
    .addHelpText("after", HELP)
    .action((flags: TakeFlags) => {
      if (flags.forBroker !== true) {
        throw new BifurcateError("E_USAGE", { what: "run bifurcate take", why: "--for-broker is missing" });
      }
      for (const line of prepare(flags)) streams.out(`${line}\n`);
    });
}

/** Does it; gives what was done. @throws E_NOT_PRIVILEGED, E_BAD_OPTION, E_SYSTEM */
export function prepare({ user, bpf, run }: Omit<TakeFlags, "forBroker">): string[] {
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
