// The lease: whether the queue is lent out, by the kernel to a virtual interface, or by a broker to another process.
import { leaseOf } from "../facts.js";
import { queueWords, type Decide } from "./stage.js";

/** The sixth stage. */
export const lease: Decide = (facts, way) => {
  const { leases } = facts.card.facts;
  const lent = leases.queues.filter((queue) => way.queues.includes(queue));
  const broker = leaseOf(facts);
  const says =
    way.to === "kernel" || way.to === "nobody"
      ? "not asked: the packet goes to no socket"
      : broker !== null
        ? brokerWords(broker)
        : lent.length > 0
          ? `the kernel lends ${queueWords(lent)} to a virtual interface`
          : "none: whoever bound the socket has the queue";
  return { stage: { name: "lease", says, complaints: [] }, way };
};

function brokerWords({
  id,
  client,
  rule,
  own = null,
  request,
}: NonNullable<ReturnType<typeof leaseOf>>): string {
  const by = own === null ? "by a port" : `with ${queueWords(own.queues)} of its own`;
  const sends = request.transmit === "none" ? "it may send nothing" : `it may send '${request.transmit}'`;
  return `${id} of user ${client.uid} (pid ${client.pid}), by the rule [${rule}], ${by}; ${sends}`;
}
