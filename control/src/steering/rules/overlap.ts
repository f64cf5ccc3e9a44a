// Whether two flows share packets, and whether a flow takes packets of one of the kernel's sockets.
import type { SocketFacts } from "../../kernel.js";
import { parseDotted, parseIpv6 } from "./addresses.js";
import { and } from "./blocks.js";
import { compileTree } from "./compile.js";
import { TooManyWays, ways } from "./facts.js";
import { matches } from "./interpret.js";
import { lower } from "./lower.js";
import type { Expression, Span } from "./tree.js";
import { describeFacts, exampleFrame } from "./witness.js";

/** The answer. "Disjoint" is certain; "overlaps" is certain when there is a frame. */
export type Overlap =
  | { readonly kind: "disjoint" }
  | {
      readonly kind: "overlaps";
      /** What such a packet looks like, e.g. "IPv4, UDP, to port 53". */
      readonly example: string;
      /** A frame that both match; null: none was found, and none was ruled out. */
      readonly frame: Uint8Array | null;
    };

/** How many ways are tried to find an example frame. */
const TRIES = 64;

/** Whether some frame matches both expressions. */
export function overlap(a: Expression, b: Expression): Overlap {
  const both = and(lower(a, ""), lower(b, ""));
  let first: string | null = null;
  let tries = 0;
  try {
    for (const facts of ways(both)) {
      first ??= describeFacts(facts);
      const frame = exampleFrame(facts);
      if (matchesBoth(a, b, frame)) return { kind: "overlaps", example: describeFacts(facts), frame };
      if (++tries === TRIES) break;
    }
  } catch (error) {
    if (!(error instanceof TooManyWays)) throw error;
    first ??= "too many alternatives to tell";
  }
  return first === null ? { kind: "disjoint" } : { kind: "overlaps", example: first, frame: null };
}

function matchesBoth(a: Expression, b: Expression, frame: Uint8Array): boolean {
  return [a, b].every((tree) => tree.kind === "all" || matches(compileTree(tree, ""), frame));
}

const NOWHERE: Span = { start: 0, end: 0 };

/**
 * Whether a flow takes packets that would have gone to a socket: of an established one its peer's packets, of a
 * listening one everything to its port. `vlans`: tags under which the namespace's VLAN devices receive, beside
 * untagged frames.
 */
export function matchesSocket(tree: Expression, socket: SocketFacts, vlans: readonly number[] = []): Overlap {
  for (const flow of socketFlows(socket)) {
    const untagged = overlap(tree, flow);
    if (untagged.kind === "overlaps") return untagged;
    for (const id of vlans) {
      const tagged: Expression = {
        kind: "and",
        left: { kind: "vlan", id, span: NOWHERE },
        right: flow,
        span: NOWHERE,
      };
      const answer = overlap(tree, tagged);
      if (answer.kind === "overlaps") return answer;
    }
  }
  return { kind: "disjoint" };
}

/** What a socket receives, as expressions: one for each version of IP. */
export function socketFlows(socket: SocketFacts): Expression[] {
  const local = addressOf(socket.localAddress);
  const remote = addressOf(socket.remoteAddress);
  const versions = new Set<4 | 6>();
  for (const address of [local, remote]) if (!address.any) versions.add(address.family);
  if (versions.size === 0) {
    versions.add(socket.family);
    // A socket on :: takes IPv4 too, unless it was told not to.
    if (socket.family === 6) versions.add(4);
  }
  return [...versions].map((version) => {
    const parts: Expression[] = [
      { kind: "protocol", protocol: version === 4 ? "ip" : "ip6", span: NOWHERE },
      port(socket.protocol, "dst", socket.localPort),
    ];
    if (!local.any) parts.push(host(local, "dst"));
    if (socket.state === "established" || socket.remotePort !== 0) {
      parts.push(port(socket.protocol, "src", socket.remotePort));
      if (!remote.any) parts.push(host(remote, "src"));
    }
    return parts.reduce((left, right) => ({ kind: "and", left, right, span: NOWHERE }));
  });
}

type Address =
  | { readonly family: 4; readonly any: boolean; readonly words: readonly [number] }
  | { readonly family: 6; readonly any: boolean; readonly words: readonly number[] };

/** An address as the kernel writes it; an IPv4 address mapped into IPv6 (RFC 4291) is one of IPv4. */
function addressOf(text: string): Address {
  const plain = text.replace(/%.*$/, "");
  const four = parseDotted(plain);
  if (four !== null && four.bits === 32) return { family: 4, any: four.value === 0, words: [four.value] };
  const words = parseIpv6(plain) ?? [0, 0, 0, 0];
  if (words[0] === 0 && words[1] === 0 && words[2] === 0xffff) {
    return { family: 4, any: words[3] === 0, words: [words[3]!] };
  }
  return { family: 6, any: words.every((word) => word === 0), words };
}

function port(transport: "tcp" | "udp", direction: "src" | "dst", number: number): Expression {
  return { kind: "port", transport, direction, first: number, last: number, span: NOWHERE };
}

function host(address: Address, direction: "src" | "dst"): Expression {
  if (address.family === 4) {
    const [word] = address.words;
    return { kind: "net4", layer: "ip", direction, address: word, mask: 0xffffffff, span: NOWHERE };
  }
  const mask = [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff];
  return { kind: "net6", direction, address: address.words, mask, span: NOWHERE };
}

/** Whether every frame of `inner` surely is one of `outer` too. */
export function contains(outer: Expression, inner: Expression): boolean {
  if (outer.kind === "all") return true;
  if (inner.kind === "all") return false;
  return overlap(inner, { kind: "not", operand: outer, span: NOWHERE }).kind === "disjoint";
}
