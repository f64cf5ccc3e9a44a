// XDP: the program on the card, what it makes of the frame on each queue, and whose it is.
import { compileAny } from "../../steering/rules/compile.js";
import { matches } from "../../steering/rules/interpret.js";
import { programConflict } from "../../steering/conflicts.js";
import { mtuRefusal } from "../../steering/ladder.js";
import { complaint, type Complaint } from "../complaint.js";
import { leaseOf, ownSplit, XDP, type ExplainFacts } from "../facts.js";
import { queueWords, type Decide, type Way } from "./stage.js";

/** What a broker's program makes of the packet. */
function brokers(facts: ExplainFacts, way: Way, whose: string): [string, Way["to"], Complaint[]] {
  const { leases, portOf } = facts.card.broker!;
  if (portOf !== null) return [`${whose}: this is the port of ${portOf.id}, not a card`, "user", []];
  if (leases === null) {
    return [`${whose}, whose leases are not for this user to see (run it as root)`, "unsure", []];
  }
  const lease = leaseOf(facts);
  if (lease === null) {
    const count = leases.length === 1 ? "its one lease" : `any of its ${leases.length} leases`;
    return [`${whose}: the frame is not of ${count}, to the kernel`, "kernel", []];
  }
  const { id, names, own = null } = lease;
  if (own === null) return [`${whose}: the frame is of ${id}, to its port ${names.far}`, "user", []];
  const taken = way.queues.filter((queue) => own.queues.includes(queue));
  if (taken.length === way.queues.length) {
    return [`${whose}: the frame is of ${id}, to the socket of ${queueWords(taken)}`, "user", []];
  }
  const left = way.queues.filter((queue) => !own.queues.includes(queue));
  const wrong = complaint(
    "wrong-queue",
    `the packet may arrive on ${queueWords(left)}, and ${id} has ${queueWords(own.queues)}: what comes elsewhere is the kernel's`,
    `steer the flow: sudo ethtool -N ${facts.card.facts.link.name} ... action ${own.queues[0]}`,
  );
  return [
    `${whose}: the frame is of ${id}, on ${queueWords(own.queues)} only`,
    taken.length === 0 ? "kernel" : "unsure",
    [wrong],
  ];
}

/** The fourth stage. */
export const xdp: Decide = (facts, way) => {
  const { card, example, splits } = facts;
  const { link } = card.facts;
  const said = (says: string, to: Way["to"], complaints: Complaint[] = []): ReturnType<Decide> => ({
    stage: { name: "XDP", says, complaints },
    way: { ...way, to: way.to === "nobody" ? "nobody" : to },
  });
  if (card.facts.xdp === null) {
    const refusal = mtuRefusal(card.facts);
    const complaints =
      refusal === null
        ? []
        : [
            complaint(
              "mtu-too-large",
              `${refusal}: no program can be attached in the driver`,
              `sudo ip link set dev ${link.name} mtu 1500`,
            ),
          ];
    const packet = splits.find((split) => split.path.backend === "af_packet");
    if (packet === undefined) return said("no program is attached", "kernel", complaints);
    const takes = matches(compileAny(packet.flows).program, example.frame);
    const says = `no program is attached: the split ${packet.id} takes the flow by AF_PACKET, and this frame ${takes ? "is" : "is not"} its`;
    return said(says, takes ? "user" : "kernel", complaints);
  }
  const { programId, mode } = card.facts.xdp;
  const split = ownSplit(facts);
  if (split === null && card.broker !== null) {
    return said(...brokers(facts, way, `program ${programId} (${mode}) of bifurcated, the broker`));
  }
  if (split === null) {
    const [words = ""] = programConflict(card.facts, "af_packet");
    const mend = `stop its owner, or: sudo ip link set dev ${link.name} xdp off`;
    return said(
      `program ${programId} (${mode}) is somebody else's: what it does is not known here`,
      "unsure",
      [complaint("foreign-program", words, mend)],
    );
  }
  const complaints =
    mode === "generic"
      ? [
          complaint(
            "copy-mode",
            "the program runs after the driver (generic XDP): each frame is copied",
            null,
          ),
        ]
      : [];
  const whose = `program ${programId} (${mode}) of the split ${split.id}`;
  const flows = split.flows.map((flow) => `'${flow}'`).join(" or ");
  if (!matches(compileAny(split.flows).program, example.frame)) {
    return said(`${whose}: the frame is not of ${flows}, to the kernel`, "kernel", [
      ...complaints,
      complaint(
        "flow-differs",
        `the packet does not match ${flows}`,
        `bifurcate explain '${split.flows[0] ?? ""}'`,
      ),
    ]);
  }
  if (facts.verdicts === null) {
    return said(`${whose}: the frame is of ${flows}, to the queue's socket`, "user", complaints);
  }
  const taken = way.queues.filter((queue) => facts.verdicts!.get(queue) === XDP.redirect);
  const left = way.queues.filter((queue) => facts.verdicts!.get(queue) !== XDP.redirect);
  if (left.length === 0) {
    return said(
      `${whose}, run on this frame: redirects it to the socket of ${queueWords(taken)}`,
      "user",
      complaints,
    );
  }
  const wrong = complaint(
    "wrong-queue",
    `run on this frame, the program passes it to the kernel on ${queueWords(left)}: no socket of the split is there (it has ${queueWords(split.path.queues)})`,
    `split all queues (leave --queues out), or steer the flow to ${queueWords(split.path.queues)}`,
  );
  return said(
    `${whose}: redirects on ${taken.length === 0 ? "none of them" : queueWords(taken)}, passes on ${queueWords(left)}`,
    taken.length === 0 ? "kernel" : "unsure",
    [...complaints, wrong],
  );
};
