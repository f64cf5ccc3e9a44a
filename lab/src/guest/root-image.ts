// Makes the guest's root file system: Debian packages unpacked, a few files that their scripts would have made,
// and an init that unpacks the project.

import { chmod, lstat, mkdir, readdir, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Recipe } from "./cache.js";
import { fetchPackages, RELEASE, unpack } from "./debian.js";
import { runInTree } from "./tree.js";

/** What the guest has: Node, and the tools that people look at networks with, and peers to measure against. */
const PACKAGES = [
  ...["base-files", "bash", "coreutils", "dash", "findutils", "grep", "hostname", "mawk", "sed", "tar"],
  ...["bsdutils", "kmod", "mount", "procps", "util-linux"],
  "nodejs",
  ...["bind9-dnsutils", "bpftool", "curl", "ethtool", "iperf3", "iproute2", "iputils-ping", "libpcap0.8t64"],
  ...["nftables", "pciutils", "socat", "strace", "tcpdump"],
  ...["ibverbs-utils", "infiniband-diags", "perftest", "rdma-core"],
  ...[
    "dpdk-dev",
    "librte-mempool-ring25",
    "librte-net-af-packet25",
    "librte-net-af-xdp25",
    "librte-net-e1000-25",
  ],
  ...["librte-net-ring25", "librte-net-vhost25", "librte-net-virtio25", "librte-net-vmxnet3-25"],
];

/** Not needed to run anything: it would only make the image larger. */
const UNUSED = [
  "usr/share/doc",
  "usr/share/man",
  "usr/share/locale",
  "usr/share/info",
  "usr/include",
  "usr/lib/systemd",
];

/** Free room in the image, in MiB: the guest writes on it, and what it writes is thrown away. */
const FREE = 768;

/** Links that the packages' scripts or Debian's alternatives would have made. */
const LINKS: readonly (readonly [link: string, target: string])[] = [
  ["usr/bin/sh", "dash"],
  ["usr/bin/awk", "mawk"],
  ["usr/local/bin/bifurcate", "/bifurcate/bifurcate/bin/bifurcate.mjs"],
];

const FILES: Readonly<Record<string, string>> = {
  "etc/passwd":
    "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
  "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
  "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
  "etc/hostname": "guest\n",
  "usr/sbin/init": `#!/bin/sh
# The project is a tar archive on the second disk; its own init does the rest.
export PATH=/usr/sbin:/usr/bin
mkdir -p /bifurcate
tar -xf /dev/vdb -C /bifurcate && exec /bifurcate/lab/guest/init
`,
};

/** The root file system as an ext4 image, root.ext4. */
export function rootRecipe(tools: string): Recipe {
  return {
    name: "root",
    from: {
      version: 1,
      release: RELEASE,
      packages: PACKAGES,
      unused: UNUSED,
      links: LINKS,
      files: FILES,
      free: FREE,
    },
    room: 2 * 2 ** 30,
    make: async (folder, scratch, say) => {
      const suites = [RELEASE, `${RELEASE}-updates`];
      const debs = await fetchPackages(
        path.join(scratch, "apt"),
        "root",
        { suites, packages: PACKAGES },
        say,
      );
      const root = path.join(scratch, "root");
      say(`root: unpacking ${debs.length} packages`);
      await unpack(debs, root);
      for (const unused of UNUSED) await rm(path.join(root, unused), { recursive: true, force: true });
      for (const mount of ["proc", "sys", "dev", "run", "tmp", "root", "bifurcate", "usr/lib/modules"]) {
        await mkdir(path.join(root, mount), { recursive: true });
      }
      for (const [link, target] of LINKS) {
        await mkdir(path.dirname(path.join(root, link)), { recursive: true });
        await rm(path.join(root, link), { force: true });
        await symlink(target, path.join(root, link));
      }
      for (const [name, text] of Object.entries(FILES)) await writeFile(path.join(root, name), text);
      await chmod(path.join(root, "usr/sbin/init"), 0o755);
      await dropArchives(path.join(root, "usr/lib/x86_64-linux-gnu"));
      say("root: making the file system");
      await makeExt4(tools, root, path.join(folder, "root.ext4"), FREE);
    },
  };
}

/** Static libraries: nothing is linked in the guest. */
async function dropArchives(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.endsWith(".a")) await rm(path.join(folder, name));
  }
}

/**
 * An ext4 image with the contents of a folder (mke2fs -d), without a journal: it is thrown away.
 * @param free MiB that stay free in it.
 */
export async function makeExt4(tools: string, from: string, image: string, free: number): Promise<void> {
  const used = await sizeOf(from);
  // Blocks are 4 KiB, and tables of inodes and groups take room of their own.
  const mib = Math.ceil((used * 1.15) / 2 ** 20) + 32 + free;
  const options = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", from, image, `${mib}M`];
  await runInTree(tools, "usr/sbin/mke2fs", options);
}

/** Bytes below a folder, each file rounded up to its blocks. */
async function sizeOf(folder: string): Promise<number> {
  let total = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const { size } = await lstat(path.join(entry.parentPath, entry.name));
    total += Math.ceil(size / 4096) * 4096 + 256;
  }
  return total;
}
