// The handler: the process that reads the socket, whose verdict ends the packet's way in user space.
import { leaseOf } from "../facts.js";
import { holderWords } from "./socket.js";
import type { Decide } from "./stage.js";

/** The seventh stage. */
export const handler: Decide = (facts, way) => {
  const { card, splits } = facts;
  const said = (says: string): ReturnType<Decide> => ({
    stage: { name: "handler", says, complaints: [] },
    way,
  });
  if (way.to === "kernel" || way.to === "nobody")
    return said("not asked: the packet does not get to user space");
  const here = (card.sockets ?? []).filter((each) => way.queues.includes(each.queue));
  const pids = new Set(here.flatMap((each) => each.holders.map((holder) => holder.pid)));
  const split =
    splits.find((each) => pids.has(each.pid)) ??
    (card.facts.xdp === null ? splits.find((each) => each.path.backend === "af_packet") : undefined);
  if (split !== undefined) {
    return said(
      `the split ${split.id} (pid ${split.pid}): dropped, unless its handler sends, passes or keeps it`,
    );
  }
  const lease = leaseOf(facts);
  if (lease !== null) {
    return said(
      `the client of ${lease.id} (pid ${lease.client.pid}): dropped, unless it sends, passes or keeps it`,
    );
  }
  const [first] = here;
  return said(first === undefined ? "nobody is seen that would read it" : `${holderWords(first)} reads it`);
};
