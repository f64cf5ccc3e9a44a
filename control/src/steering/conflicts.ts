// Whom a split would hurt: other splits, other XDP programs, the SSH session in use, the kernel's listeners.
import { BifurcateError } from "../errors.js";
import type { Facts } from "../facts/facts.js";
import type { SocketFacts } from "../kernel.js";
import type { CompileFlow, Flow } from "./flow.js";
import type { SplitRequest } from "./plan.js";

/** "udp 10.0.0.1:53", IPv6 addresses in brackets. */
function endpoint(address: string, port: number): string {
  return `${address.includes(":") ? `[${address}]` : address}:${port}`;
}

function vlanIds(facts: Facts): number[] {
  return facts.vlans.flatMap((vlan) => (vlan.vlanId === null ? [] : [vlan.vlanId]));
}

function sessionWords(socket: SocketFacts): string {
  return `${endpoint(socket.remoteAddress, socket.remotePort)} to ${endpoint(socket.localAddress, socket.localPort)}`;
}

/** E_OWN_SESSION where a flow takes an SSH session, unless forced: then the warning to print. */
export function sessionConflict(facts: Facts, request: SplitRequest, flows: readonly Flow[]): string[] {
  const warnings: string[] = [];
  for (const session of facts.sessions) {
    const flow = flows.find((each) => each.takes(session.socket, vlanIds(facts)));
    if (flow === undefined) continue;
    const whose = session.known === "own" ? "the SSH session of this command" : "an SSH session in use";
    const why = `'${flow.text}' includes ${whose}, ${sessionWords(session.socket)}`;
    if (request.force !== true) {
      throw new BifurcateError("E_OWN_SESSION", {
        what: `split ${facts.link.name}`,
        why,
        data: { flow: flow.text, session: sessionWords(session.socket) },
      });
    }
    warnings.push(`${why}; it is taken all the same (--force)`);
  }
  return warnings;
}

/** E_FLOW_TAKEN where a flow overlaps another live split's. */
export function splitConflict(facts: Facts, flows: readonly Flow[], compile: CompileFlow): void {
  for (const other of facts.otherSplits) {
    for (const text of other.flows) {
      const theirs = compile(text);
      const mine = flows.find((each) => each.overlaps(theirs));
      if (mine === undefined) continue;
      throw new BifurcateError("E_FLOW_TAKEN", {
        what: `split ${facts.link.name}`,
        why: `'${mine.text}' overlaps '${text}' of the split ${other.id} (pid ${other.pid})`,
        next: `End that split with \`bifurcate release ${other.id}\`, or choose a flow that does not overlap.`,
        data: { flow: mine.text, split: other.id, pid: other.pid },
      });
    }
  }
}

/** E_FOREIGN_XDP where a program is attached already; for af_packet a warning, since it sees the frames first. */
export function programConflict(facts: Facts, backend: "af_xdp" | "af_packet"): string[] {
  if (facts.xdp === null) return [];
  const { programId, owner } = facts.xdp;
  const holders = owner?.holders.map((each) => `${each.command} (pid ${each.pid})`) ?? [];
  const named = owner === null || owner.name === "" ? `${programId}` : `${programId} (${owner.name})`;
  const whose =
    holders.length > 0 ? `held by ${holders.join(", ")}` : "held by no process: pinned or attached by ip(8)";
  const what = `the XDP program ${named}, ${whose}`;
  if (backend === "af_packet") return [`${what}, sees the frames first; what it takes does not get here`];
  const ours = facts.otherSplits.find((each) => owner?.holders.some((holder) => holder.pid === each.pid));
  throw new BifurcateError("E_FOREIGN_XDP", {
    what: `split ${facts.link.name} with AF_XDP`,
    why: `${what}, is attached to it`,
    next:
      ours === undefined
        ? `Stop its owner, or detach it with \`ip link set dev ${facts.link.name} xdp off\`, or use --backend af_packet.`
        : `It is the split ${ours.id}: give one split both flows, or end it with \`bifurcate release ${ours.id}\`, or use --backend af_packet.`,
    data: { programId, holders: owner?.holders ?? [] },
  });
}

/** A warning for each kernel listener that would no longer hear the flow. */
export function listenerWarnings(facts: Facts, flows: readonly Flow[]): string[] {
  const warnings = new Set<string>();
  const vlans = vlanIds(facts);
  for (const { socket, holder } of facts.listeners) {
    const flow = flows.find((each) => each.takes(socket, vlans));
    if (flow === undefined) continue;
    const where = endpoint(socket.localAddress, socket.localPort);
    warnings.add(
      `${holder ?? "a socket of the kernel"} listens on ${socket.protocol} ${where} and no longer hears ` +
        `what '${flow.text}' takes on ${facts.link.name}`,
    );
  }
  return [...warnings];
}
