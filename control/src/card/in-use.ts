// Why a card should stay where it is: what would end if its interface went away.
import { inheritedVariable } from "../facts/processes.js";
import { uppers } from "../facts/facts.js";
import { sessionsOver } from "../facts/session.js";
import type { Address, Link, Route, SocketFacts } from "../kernel.js";

/** What is known of the machine's first network namespace. */
export interface Surroundings {
  readonly links: readonly Link[];
  readonly addresses: readonly Address[];
  readonly routes: readonly Route[];
  readonly sockets: readonly SocketFacts[];
  /** sshd's variable of this session; null when it is none. */
  readonly sshConnection: string | null;
  /** The splits on an interface, by its number. */
  splitsOn(ifindex: number): readonly { readonly id: string; readonly pid: number }[];
}

/** SSH_CONNECTION of this process or an ancestor. */
export const ownSshConnection = (): string | null => inheritedVariable("SSH_CONNECTION");

/**
 * What of the kernel's stands on an interface, in words: bridges and bonds that it is a port of, VLANs and their like.
 * @param above What uppers() gives of it.
 */
export function standsOn(link: Link, above: readonly Link[]): string[] {
  return above.map((each) =>
    each.index === link.master
      ? `${link.name} is a port of ${each.name}`
      : `${each.name} stands on ${link.name}`,
  );
}

/** Every reason not to take an interface away, the weightiest first; none when it may go. */
export function reasonsToStay(link: Link, around: Surroundings): string[] {
  const above = uppers(around.links, link.index);
  const over = new Set([link.index, ...above.map((each) => each.index)]);
  const named = (index: number): string =>
    around.links.find((each) => each.index === index)?.name ?? `${index}`;
  const through = (index: number): string =>
    index === link.index ? link.name : `${link.name}, through ${named(index)}`;
  const local = around.addresses.filter((each) => over.has(each.ifindex)).map((each) => each.address);
  const sessions = sessionsOver(around.sockets, local, around.sshConnection).map(({ socket, known }) => {
    const whose = known === "own" ? "the SSH session of this command" : "an SSH session";
    return `${whose} from ${socket.remoteAddress} runs over ${link.name}`;
  });
  const defaults = around.routes
    .filter((route) => route.destination === "default" && over.has(route.ifindex))
    .map((route) => `the default route (IPv${route.family}) leaves by ${through(route.ifindex)}`);
  const splits = around
    .splitsOn(link.index)
    .map(({ id, pid }) => `the split ${id} (pid ${pid}) runs on ${link.name}`);
  return [...new Set([...sessions, ...defaults, ...splits, ...standsOn(link, above)])];
}
