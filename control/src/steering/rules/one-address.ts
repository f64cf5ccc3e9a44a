// Which address the frames of an expression are sent to: what a card's virtual function can be given.
import { TooManyWays, ways, type Facts } from "./facts.js";
import { lower } from "./lower.js";
import type { Expression } from "./tree.js";

/** The one address, six bytes; or why there is none. */
export type OneAddress =
  | { readonly kind: "address"; readonly mac: readonly number[] }
  | { readonly kind: "none"; readonly reason: string };

const none = (reason: string): OneAddress => ({ kind: "none", reason });

/** TPIDs of tags: the card would have to be told of the VLAN as well. */
const TAGS = [0x8100, 0x88a8, 0x9100];

/**
 * The unicast address that every frame of the expressions is sent to. Broadcast frames may be among them: every virtual
 * function gets those.
 */
export function oneAddress(trees: readonly Expression[]): OneAddress {
  const found = new Map<string, readonly number[]>();
  try {
    for (const tree of trees) {
      if (tree.kind === "all") return none("the whole card was asked for");
      for (const facts of ways(lower(tree, ""))) {
        const mac = destination(facts);
        if (mac === null)
          return none("a frame of the flow may be sent to any address (add `ether dst MAC and ...`)");
        const type = facts.value(12, 2);
        if (type !== null && TAGS.includes(type))
          return none("it looks at VLAN tags, which a virtual function is not told");
        if (mac.every((byte) => byte === 0xff)) continue;
        if ((mac[0]! & 1) !== 0) return none("a multicast address cannot be a card's");
        found.set(mac.join(), mac);
      }
    }
  } catch (error) {
    if (!(error instanceof TooManyWays)) throw error;
    return none("it has too many alternatives");
  }
  const [mac, ...others] = [...found.values()];
  if (mac === undefined) return none("no frame of it is sent to one card");
  return others.length > 0 ? none("its frames are sent to several addresses") : { kind: "address", mac };
}

function destination(facts: Facts): number[] | null {
  const bytes = [0, 1, 2, 3, 4, 5].map((at) => facts.value(at, 1));
  return bytes.some((byte) => byte === null) ? null : (bytes as number[]);
}
