// The AF_XDP socket on the queue: is one there, has it frames to fill, is it read, does it copy.
import { sharedFillRings } from "../../doctor/card-findings.js";
import type { XskFacts, XskRing } from "../../observe/kernel.js";
import { zeroCopyRefusal } from "../../steering/ladder.js";
import { complaint, type Complaint } from "../complaint.js";
import { leaseOf, type ExplainFacts } from "../facts.js";
import { queueWords, type Decide } from "./stage.js";

/** Entries in a ring now: both ends count modulo 2^32. */
export function pending(ring: XskRing): number {
  return (ring.producer - ring.consumer) >>> 0;
}

/** Bytes that the kernel keeps before each frame (XDP_PACKET_HEADROOM). */
const HEADROOM = 256;

/** "node (pid 5)". */
export function holderWords({ holders }: XskFacts): string {
  if (holders.length === 0) return "a process that cannot be seen";
  return holders.map(({ command, pid }) => `${command} (pid ${pid})`).join(", ");
}

/** The fifth stage. */
export const socket: Decide = (facts, way) => {
  const { card } = facts;
  const said = (says: string, complaints: Complaint[] = []): ReturnType<Decide> => ({
    stage: { name: "socket", says, complaints },
    way,
  });
  if (way.to === "kernel" || way.to === "nobody")
    return said("not asked: no program brings the packet to one");
  if (card.facts.xdp === null) return said("a packet socket (AF_PACKET): it copies every frame of the flow");
  const lease = leaseOf(facts);
  if (lease !== null && (lease.own ?? null) === null) {
    return said(`bound to the lease's port ${lease.names.far}: it copies every frame of the flow`);
  }
  if (card.sockets === null) return said("AF_XDP sockets cannot be looked for: run it as root");
  const here = card.sockets.filter((each) => way.queues.includes(each.queue));
  const missing = way.queues.filter((queue) => !here.some((each) => each.queue === queue));
  const complaints = here.flatMap((each) => socketComplaints(facts, each));
  // Where the program was run on the frame, the stage before has told what becomes of it on each queue.
  if (missing.length > 0 && card.sockets.length > 0 && facts.verdicts === null) {
    const elsewhere = [...new Set(card.sockets.map((each) => each.queue))];
    complaints.unshift(
      complaint(
        "wrong-queue",
        `the packet may arrive on ${queueWords(missing)}, and the sockets are on ${queueWords(elsewhere)}`,
        `bind a socket to every queue, or steer the flow: sudo ethtool -N ${card.facts.link.name} ... action ${elsewhere[0]}`,
      ),
    );
  }
  if (here.length === 0) {
    const says = `no AF_XDP socket is seen on ${queueWords(way.queues)}`;
    return said(
      says,
      complaints.length > 0 ? complaints : [complaint("no-socket", says, "start the program that binds it")],
    );
  }
  const words = here.map((each) => {
    const mode = each.zeroCopy === null ? "" : each.zeroCopy ? ", zero-copy" : ", copy";
    const rings =
      each.fill === null || each.rx === null
        ? ""
        : `, ${pending(each.fill)} frames to fill, ${pending(each.rx)} unread`;
    return `queue ${each.queue}: ${holderWords(each)}${mode}${rings}`;
  });
  return said(words.join("; "), complaints);
};

/** What is wrong with one socket, as far as one look shows. */
export function socketComplaints({ card, example }: ExplainFacts, each: XskFacts): Complaint[] {
  const found: Complaint[] = [];
  const whose = `the socket of ${holderWords(each)} on queue ${each.queue}`;
  if (each.fill !== null && pending(each.fill) === 0) {
    const unread = each.rx === null ? "" : `, ${pending(each.rx)} frames wait unread`;
    const says = `${whose} has no frame in its fill ring${unread}: what arrives is dropped`;
    found.push(
      complaint(
        "fill-ring-empty",
        says,
        "give frames back to the fill ring as they are used; a handler that keeps frames has to let them go",
      ),
    );
  }
  if (each.rx !== null && each.rxEntries !== null && pending(each.rx) >= each.rxEntries) {
    found.push(
      complaint(
        "ring-full",
        `the receive ring of ${whose} is full: its owner does not read`,
        "read it more often, or make it larger",
      ),
    );
  }
  if (each.tx !== null && pending(each.tx) > 0 && each.tx.needWakeup) {
    const says = `${pending(each.tx)} frames wait in the transmit ring of ${whose}, and the kernel sleeps until it is called`;
    found.push(
      complaint("need-wakeup-ignored", says, "call sendto() when the ring's flags have XDP_RING_NEED_WAKEUP"),
    );
  }
  if (each.fill !== null && each.zeroCopy === true && pending(each.fill) > 0 && each.fill.needWakeup) {
    const says = `the fill ring of ${whose} was refilled, and the driver sleeps until it is called`;
    found.push(
      complaint(
        "need-wakeup-ignored",
        says,
        "call poll() or recvfrom() when the fill ring's flags have XDP_RING_NEED_WAKEUP",
      ),
    );
  }
  const shared = sharedFillRings(card).get(each.queue);
  if (shared !== undefined) {
    const says = `the fill ring of queue ${each.queue} is mapped by the processes ${shared.join(", ")}: it takes one producer`;
    found.push(
      complaint("umem-shared-wrongly", says, "let one process fill, and hand the others their frames"),
    );
  }
  const could = zeroCopyRefusal(card.facts, { backend: "af_xdp", mode: "driver" }, "own-queue") === null;
  if (each.zeroCopy === false && could && card.facts.xdpFeatures !== null) {
    const says = `${whose} copies each frame, and ${card.facts.driver.driver} has zero-copy`;
    found.push(
      complaint("copy-mode", says, "bind with XDP_ZEROCOPY, or: bifurcate split ... --zero-copy require"),
    );
  }
  const room = each.umem === null ? null : each.umem.chunkSize - each.umem.headroom - HEADROOM;
  if (room !== null && example.packet.length > room) {
    const says = `the frame has ${example.packet.length} bytes, and ${whose} has ${room} for each`;
    found.push(complaint("too-long", says, "use frames of 4096 bytes, or bind with XDP_USE_SG"));
  }
  return found;
}
