// What of a request can be known to fail before a card is touched: processors, other cards, the handler.

import { findLink } from "@bifurcate/control/facts/facts";
import { nativeKernel } from "@bifurcate/control/native";
import { openNetns } from "@bifurcate/control/prepare";
import { checkProcessors } from "../processors.js";
import { checkSpec, isSpec } from "../spec.js";
import type { ActionRequest } from "./action-run.js";

/**
 * Checks a request as far as that goes without a change.
 * @throws E_BAD_OPTION for a processor that is not there and for a bad spec, E_NO_SUCH_INTERFACE and E_NO_SUCH_NETNS
 *   for a card to send out of, E_HANDLER_FILE.
 */
export async function checkAction(request: ActionRequest): Promise<void> {
  const { action, cores, outputs } = request;
  checkCores(cores);
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
export function checkCores(cores: readonly number[] | undefined): void {
  if (cores !== undefined) checkProcessors(`read --cores '${cores.join(",")}'`, "--cores", cores);
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
