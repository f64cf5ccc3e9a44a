// DPDK of a newer Debian than this machine may have: its testpmd, unpacked into the user's cache and run by its own loader.

import path from "node:path";
import { provide, type Recipe, type Say } from "../guest/cache.js";
import { fetchPackages, RELEASE, unpack } from "../guest/debian.js";
import { inTree } from "../guest/tree.js";

/** testpmd, the driver for AF_XDP sockets, and the memory pool that testpmd asks for; apt adds what they need. */
const PACKAGES = ["dpdk-dev", "librte-net-af-xdp25", "librte-mempool-ring25"];
/** Of all that apt resolves, what testpmd is linked with. */
const LINKED = /^(dpdk-dev|librte-(?!meta).*|lib(?!.*-dev$).*)$/;
/** What of DPDK's drivers is loaded: of several hundred that would be. */
const DRIVERS = ["librte_bus_vdev.so.25", "librte_mempool_ring.so.25", "librte_net_af_xdp.so.25"];

const recipe: Recipe = {
  name: "dpdk",
  from: { version: 1, release: RELEASE, packages: PACKAGES, only: LINKED.source },
  room: 2 ** 29,
  make: async (folder, scratch, say) => {
    const set = { suites: [RELEASE, `${RELEASE}-updates`], packages: PACKAGES, only: LINKED };
    const debs = await fetchPackages(path.join(scratch, "apt"), "dpdk", set, say);
    say(`dpdk: unpacking ${debs.length} packages`);
    await unpack(debs, folder);
  },
};

/** Where DPDK is: fetched when it is not in the cache yet. @throws E_GUEST_FETCH, E_GUEST_CACHE */
export async function provideDpdk(say: Say): Promise<string> {
  return provide(recipe, say);
}

/** The command that starts testpmd of that folder, or of one that it is bound to, with the drivers of its own. */
export function testpmd(root: string): string[] {
  const drivers = path.join(root, "usr/lib/x86_64-linux-gnu/dpdk/pmds-25.0");
  return [
    ...inTree(root, "usr/bin/dpdk-testpmd"),
    ...DRIVERS.flatMap((driver) => ["-d", path.join(drivers, driver)]),
  ];
}
