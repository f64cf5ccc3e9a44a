// Builds the fake libibverbs of fake-ibverbs.c for tests: a process that has its folder in LD_LIBRARY_PATH loads it.

import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The symbols' versions, as rdma-core's libibverbs.map has them. */
const VERSIONS = `
IBVERBS_1.0 { global: ibv_create_comp_channel; ibv_destroy_comp_channel; local: *; };
IBVERBS_1.1 { global: ibv_get_device_list; ibv_free_device_list; ibv_get_device_name; ibv_open_device; ibv_close_device;
  ibv_get_async_event; ibv_ack_async_event; ibv_alloc_pd; ibv_dealloc_pd; ibv_reg_mr; ibv_dereg_mr; ibv_create_cq;
  ibv_destroy_cq; ibv_get_cq_event; ibv_ack_cq_events; ibv_create_qp; ibv_modify_qp; ibv_destroy_qp; ibv_create_ah;
  ibv_destroy_ah; } IBVERBS_1.0;
IBVERBS_1.11 { global: _ibv_query_gid_table; } IBVERBS_1.1;
`;

/** Why it cannot be built here; null when it can. */
export const cannotBuild = !existsSync("/usr/include/infiniband/verbs.h")
  ? "infiniband/verbs.h is not installed (libibverbs-dev)"
  : spawnSync("cc", ["--version"]).error !== undefined
    ? "no C compiler"
    : null;

/** Builds libibverbs.so.1 in a folder. @throws Error with the compiler's words */
export function buildFake(folder: string): void {
  const source = fileURLToPath(new URL("./fake-ibverbs.c", import.meta.url));
  const versions = path.join(folder, "versions");
  writeFileSync(versions, VERSIONS);
  const library = path.join(folder, "libibverbs.so.1");
  const options = [
    "-shared",
    "-fPIC",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    `-Wl,--version-script=${versions}`,
  ];
  const { status, stderr } = spawnSync("cc", [...options, "-o", library, source], { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
}
