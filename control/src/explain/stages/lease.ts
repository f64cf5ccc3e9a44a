// The lease: whether the queue is lent out, by the kernel to a virtual interface, or by a broker to another process.
import { queueWords, type Decide } from "./stage.js";

/** The sixth stage. What a broker has granted is asked here too, once there is one to ask. */
export const lease: Decide = ({ card }, way) => {
  const lent = card.facts.leases.queues.filter((queue) => way.queues.includes(queue));
  const says =
    way.to === "kernel" || way.to === "nobody"
      ? "not asked: the packet goes to no socket"
      : lent.length > 0
        ? `the kernel lends ${queueWords(lent)} to a virtual interface`
        : "none: whoever bound the socket has the queue";
  return { stage: { name: "lease", says, complaints: [] }, way };
};
