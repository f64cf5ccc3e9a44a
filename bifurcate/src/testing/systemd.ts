// For tests: a real systemd as the first process of a container made of namespaces, in which the shipped unit is started.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const SYSTEMD = "/lib/systemd/systemd";
/** Where the tree lies in the container. */
const TREE = "/opt/bifurcate";

/** Why there can be no systemd here; null when there can. */
export function noSystemd(): string | null {
  return existsSync(SYSTEMD) ? null : "needs systemd";
}

/**
 * Makes the container: this machine's programs, read only; /etc, /run and /tmp of its own; a cgroup of its own; the tree,
 * whose commands stand in /usr/local/bin as npm would put them there. $0: an empty folder, $1: the tree, $2: node.
 */
const INSIDE = `set -e
R=$0/root
mount --make-rprivate /
mkdir $R
mount -t tmpfs -o mode=755 tmpfs $R
cd $R
mkdir usr proc sys dev run tmp etc var root old opt opt/bifurcate
for d in bin sbin lib lib64; do ln -s usr/$d $d; done
mount --rbind -o ro /usr usr
mount -t tmpfs -o mode=755 tmpfs usr/local/bin
touch usr/local/bin/node
mount --bind $2 usr/local/bin/node
for c in bifurcate bifurcated; do ln -s ${TREE}/bifurcate/bin/$c.mjs usr/local/bin/$c; done
mount --bind -o ro $1 opt/bifurcate
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
cp /etc/ld.so.cache /etc/nsswitch.conf /etc/login.defs etc/
grep -E '^(root|nobody):' /etc/passwd > etc/passwd
grep -E '^(root|nogroup):' /etc/group > etc/group
: > etc/machine-id
mkdir -p etc/systemd/system
for t in sysinit basic shutdown multi-user; do
  printf '[Unit]\\nDescription=%s\\nDefaultDependencies=no\\nAllowIsolate=yes\\n' $t > etc/systemd/system/$t.target
done
pivot_root . old
umount -l /old
exec env -i container=other SYSTEMD_UNIT_PATH=/etc/systemd/system PATH=/usr/local/bin:/usr/sbin:/usr/bin \\
  ${SYSTEMD} --system --unit=multi-user.target --log-target=null --show-status=no
`;

/** Enters a cgroup of its own, of the name $2, by a mount at $1; then the namespaces. */
const OUTSIDE = `set -e
mount --make-rprivate /
mkdir $0/cgroup
mount -t cgroup2 cgroup2 $0/cgroup
mkdir $0/cgroup/$1
echo $$ > $0/cgroup/$1/cgroup.procs
shift
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -c "$1" "$0" "$2" "$3"
`;

/** A container with systemd. */
export class Systemd {
  private readonly folder = mkdtempSync(path.join(tmpdir(), "bf-systemd-"));
  private readonly cgroup = path.basename(this.folder);
  private readonly outer: ChildProcess;
  private readonly children = new Set<ChildProcess>();
  private first = 0;

  /** @param netns Its network namespace. */
  constructor(netns: string) {
    const outside = ["unshare", "--mount", "sh", "-c", OUTSIDE, this.folder, this.cgroup];
    this.outer = spawn("ip", ["netns", "exec", netns, ...outside, INSIDE, ROOT, process.execPath], {
      stdio: ["ignore", "inherit", "inherit"],
    });
  }

  /** Waits until it runs. */
  async boot(): Promise<void> {
    for (let tries = 0; tries < 1500 && this.outer.exitCode === null; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      try {
        this.first = Number(execFileSync("pgrep", ["-P", String(this.outer.pid)], { encoding: "utf8" }));
        if (this.sh("systemctl is-system-running || true").trim() === "running") return;
      } catch {
        // Not that far yet.
      }
    }
    throw new Error("systemd did not come up");
  }

  /** What a shell script printed that root runs in the container, in the tree. */
  sh(script: string): string {
    const [command, ...args] = this.inside(["sh", "-c", script]);
    return execFileSync(command!, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  /** Starts a command in the container. */
  spawn(command: readonly string[]): ChildProcess {
    const [first, ...args] = this.inside(command);
    const child = spawn(first!, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.children.add(child);
    child.once("exit", () => this.children.delete(child));
    return child;
  }

  private inside(command: readonly string[]): string[] {
    const env = ["PATH=/usr/local/bin:/usr/sbin:/usr/bin", "SYSTEMD_UNIT_PATH=/etc/systemd/system"];
    return ["nsenter", "-t", String(this.first), "-a", "env", "-i", "-C", TREE, ...env, ...command];
  }

  /** Ends everything in it; nothing is left. */
  async remove(): Promise<void> {
    for (const child of this.children) child.kill("SIGKILL");
    const ended = new Promise<void>((resolve) => {
      if (this.outer.exitCode !== null || this.outer.signalCode !== null) resolve();
      else this.outer.once("exit", () => resolve());
    });
    this.outer.kill("SIGKILL");
    await ended;
    // Its cgroups are empty when the kernel has reaped it all.
    const sweep = `mount --make-rprivate / && mount -t cgroup2 cgroup2 $0/cgroup && cd $0/cgroup
      for i in $(seq 600); do [ -d $1 ] || exit 0; find $1 -depth -type d -exec rmdir {} + 2>/dev/null; sleep 0.1; done; exit 1`;
    execFileSync("unshare", ["--mount", "sh", "-c", sweep, this.folder, this.cgroup], { stdio: "inherit" });
    rmSync(this.folder, { recursive: true, force: true });
  }
}
