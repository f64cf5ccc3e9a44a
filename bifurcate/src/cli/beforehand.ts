// What of a request can be known to fail before a card is touched: processors, other cards, the handler.

import { readFileSync } from "node:fs";
import { BifurcateError, findLink, nativeKernel, openNetns } from "@bifurcate/control";
import { checkSpec, isSpec } from "../spec.js";
import type { ActionRequest } from "./action-run.js";
import { onlineProcessors } from "./options.js";

/** The processors that are there, as the kernel lists them: "0-3". */
const ONLINE = "/sys/devices/system/cpu/online";

/**
 * Checks a request as far as that goes without a change.
 * @throws E_BAD_OPTION for a processor that is not there and for a bad spec, E_NO_SUCH_INTERFACE and E_NO_SUCH_NETNS
 *   for a card to send out of, E_HANDLER_FILE.
 */
export async function checkAction(request: ActionRequest): Promise<void> {
  const { action, cores, outputs } = request;
  checkCoresOnline(cores);
  const targets = action.kind === "forward" ? [action.to] : outputs;
  for (const spec of targets.filter(isSpec)) checkSpec(spec);
  checkInterfaces(
    targets.filter((word) => !isSpec(word)),
    request.netns,
  );
  if (action.kind !== "run") return;
  const { bundleHandler } = await import("../handler-file.js");
  await (await bundleHandler(action.file)).dispose();
}

/** @throws E_BAD_OPTION for a processor that this machine does not have. */
export function checkCoresOnline(cores: readonly number[] | undefined): void {
  if (cores !== undefined) checkCores(cores, readFileSync(ONLINE, "utf8").trim());
}

/** @param online The processors that are there, e.g. "0-3". */
export function checkCores(cores: readonly number[], online: string): void {
  const there = new Set(onlineProcessors(online));
  const missing = cores.find((core) => !there.has(core));
  if (missing === undefined) return;
  throw new BifurcateError("E_BAD_OPTION", {
    what: `read --cores '${cores.join(",")}'`,
    why: `there is no processor ${missing}: this machine has ${online}`,
    next: "See them with `lscpu -e`; `cat /sys/class/net/DEV/device/numa_node` tells which are near the card.",
    data: { option: "--cores", value: cores.join(",") },
  });
}

/** @throws E_NO_SUCH_INTERFACE, E_NO_SUCH_NETNS */
export function checkInterfaces(names: readonly string[], where: string | null): void {
  if (names.length === 0) return;
  const netns = openNetns(nativeKernel(), where);
  try {
    const links = netns.links();
    for (const name of names) findLink(links, name);
  } finally {
    netns.close();
  }
}
