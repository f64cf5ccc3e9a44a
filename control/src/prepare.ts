// From a request to a plan on this machine: opens the namespace, reads the facts, plans. Changes nothing.
import { machineBus } from "./card/bus.js";
import { probesByItself } from "./card/virtual-function.js";
import { BifurcateError, errnoOf, wrapError } from "./errors.js";
import { findLink, readFacts, type Facts } from "./facts/facts.js";
import type { Kernel, Netns } from "./kernel.js";
import { compileFlow } from "./steering/compile-flow.js";
import { makePlan } from "./steering/make-plan.js";
import type { Plan, SplitRequest } from "./steering/plan.js";
import { makeVfPlan, type VfCard } from "./steering/vf-plan.js";
import { stateDirectory } from "./transaction/journal.js";
import { splitsOn } from "./transaction/registry.js";

/** A request and where it is to happen. */
export interface PrepareOptions extends SplitRequest {
  /** A namespace's name or path; null or left out: the process's own. */
  readonly netns?: string | null | undefined;
  /** Where journals are; BIFURCATE_STATE_DIR or /run/bifurcate when left out. */
  readonly stateDirectory?: string | undefined;
}

/** A plan with the open namespace that it is about. Close the namespace when done with it. */
export interface PreparedSplit {
  readonly plan: Plan;
  readonly facts: Facts;
  readonly netns: Netns;
  /** The path of the namespace's file, for a guardian to open. */
  readonly netnsPath: string;
  readonly stateDirectory: string;
}

/** Opens a namespace; E_NO_SUCH_NETNS where there is none of that name. */
export function openNetns(kernel: Kernel, name: string | null): Netns {
  try {
    return kernel.openNetns(name);
  } catch (thrown) {
    const what = name === null ? "open the process's own namespace" : `open the network namespace ${name}`;
    if (errnoOf(thrown) === "ENOENT") {
      throw new BifurcateError("E_NO_SUCH_NETNS", { what, why: "there is no such file", cause: thrown });
    }
    throw wrapError(thrown, what);
  }
}

/** Where a namespace of that name is found by another process. */
export function netnsPath(name: string | null): string {
  if (name === null) return `/proc/${process.pid}/ns/net`;
  return name.includes("/") ? name : `/run/netns/${name}`;
}

/** What a split needs to be allowed, capabilities(7); each is asked for only where the plan needs it. */
const NEEDED = {
  af_xdp: ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"],
  af_packet: ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"],
  vf: ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"],
} as const;

/** The capabilities that a split through `backend` needs and that are missing. */
export function missingCapabilities(backend: keyof typeof NEEDED, capabilities: readonly string[]): string[] {
  const has = new Set(capabilities);
  if (has.has("CAP_SYS_ADMIN")) has.add("CAP_BPF"); // CAP_BPF was a part of it until 5.8
  return NEEDED[backend].filter((each) => !has.has(each));
}

/** E_NOT_PRIVILEGED naming each capability that is missing. */
export function checkCapabilities(plan: Plan, capabilities: readonly string[]): void {
  const missing = missingCapabilities(plan.path.backend, capabilities);
  if (missing.length === 0) return;
  throw new BifurcateError("E_NOT_PRIVILEGED", {
    what: `split ${plan.device.name}`,
    why: `the process lacks ${missing.join(", ")}`,
    next: "Run it as root (sudo), or give it these capabilities; --dry-run works without them.",
    data: { missing },
  });
}

/** The card as a PCI function; null for what is none. */
function vfCard(address: string): VfCard | null {
  try {
    return { function: machineBus().function(address), probes: probesByItself(address) };
  } catch {
    return null;
  }
}

/**
 * Reads the facts and plans the split. Errors: those of readFacts and makePlan, and E_NO_SUCH_NETNS.
 * Capabilities are checked when the plan is applied, so that a dry run needs none.
 */
export function prepareSplit(kernel: Kernel, options: PrepareOptions): PreparedSplit {
  const netns = openNetns(kernel, options.netns ?? null);
  try {
    const directory = options.stateDirectory ?? stateDirectory();
    const link = findLink(netns.links(), options.ifname);
    const others = splitsOn(directory, netns.inode, link.index);
    const facts = readFacts(kernel, netns, options.ifname, others);
    const plan =
      options.backend === "vf"
        ? makeVfPlan(facts, options, vfCard(facts.driver.bus))
        : makePlan(facts, options, compileFlow);
    return { plan, facts, netns, netnsPath: netnsPath(options.netns ?? null), stateDirectory: directory };
  } catch (thrown) {
    netns.close();
    throw wrapError(thrown, `plan a split of ${options.ifname}`);
  }
}
