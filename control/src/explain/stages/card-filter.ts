// The card's filter: ntuple rules, matched exactly against the frame; the lowest location that matches wins.
import { queueOfRule } from "../../doctor/card-findings.js";
import { ruleMatches } from "../../steering/rules/ntuple-model.js";
import { complaint, type Complaint } from "../complaint.js";
import type { Decide, Stage, Way } from "./stage.js";

/** A rule may name an RSS context in place of a queue (FLOW_RSS, include/uapi/linux/ethtool.h). */
const FLOW_RSS = 0x2000_0000;
const DISCARD = 0xffff_ffff_ffff_ffffn;

/** The second stage. */
export const cardFilter: Decide = ({ card, example, splits }, way) => {
  const { ntuple, features, driver, link } = card.facts;
  const said = (says: string, complaints: Complaint[] = [], next: Way = way): { stage: Stage; way: Way } => ({
    stage: { name: "card filter", says, complaints },
    way: next,
  });
  const complaints: Complaint[] = card.stale.map((split) =>
    complaint(
      "rules-left",
      `the split ${split.id} (${split.flows.join("; ")}) is dead, and its settings are still on the card`,
      "sudo bifurcate release --stale",
    ),
  );
  if (ntuple === null || ntuple.capacity === 0)
    return said(`${driver.driver} has no ntuple rules`, complaints);
  if (features["rx-ntuple-filter"]?.active === false)
    return said("ntuple rules are switched off", complaints);
  const matching: { location: number; bytes: Uint8Array }[] = [];
  const unknown: number[] = [];
  for (const rule of [...ntuple.rules].sort((a, b) => a.location - b.location)) {
    try {
      if (ruleMatches(withoutRss(rule.bytes), example.frame)) matching.push(rule);
    } catch {
      unknown.push(rule.location);
    }
  }
  const note = unknown.length === 0 ? "" : `; what rule ${unknown.join(", ")} says is not understood here`;
  const [first, ...rest] = matching;
  if (first === undefined) {
    return said(`none of ${ntuple.rules.length} ntuple rules matches${note}`, complaints);
  }
  const target = targetOf(first.bytes);
  for (const rule of rest) {
    const other = targetOf(rule.bytes);
    if (other.words === target.words) continue;
    const says = `rule ${rule.location} (to ${other.words}) matches too, and rule ${first.location} (to ${target.words}) comes first`;
    complaints.push(
      complaint("rule-shadowed", says, `sudo ethtool -N ${link.name} delete ${first.location}`),
    );
  }
  if (target.queue !== null) {
    const served = card.sockets?.some((socket) => socket.queue === target.queue) ?? true;
    const table = card.facts.rss?.indirection.includes(target.queue) ?? true;
    if (!served && !table && splits.length === 0 && card.stale.length === 0) {
      const says = `rule ${first.location} steers to queue ${target.queue}, which no AF_XDP socket serves and RSS leaves out: a crash left it`;
      complaints.push(complaint("rules-left", says, `sudo ethtool -N ${link.name} delete ${first.location}`));
    }
  }
  if (target.drops) {
    const says = `rule ${first.location} drops the packet in the card`;
    complaints.push(complaint("rule-drops", says, `sudo ethtool -N ${link.name} delete ${first.location}`));
    return said(says, complaints, { ...way, to: "nobody" });
  }
  const steered = target.queue === null ? way : { ...way, queues: [target.queue], steered: true };
  return said(`rule ${first.location} matches: to ${target.words}${note}`, complaints, steered);
};

/** The same rule without the flag of an RSS context, which the matching does not look at. */
function withoutRss(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  const view = new DataView(copy.buffer);
  view.setUint32(0, (view.getUint32(0, true) & ~FLOW_RSS) >>> 0, true);
  return copy;
}

function targetOf(bytes: Uint8Array): { queue: number | null; drops: boolean; words: string } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const cookie = view.getBigUint64(152, true);
  if (cookie === DISCARD) return { queue: null, drops: true, words: "nowhere" };
  if ((view.getUint32(0, true) & FLOW_RSS) !== 0) {
    return { queue: null, drops: false, words: "an RSS context" };
  }
  const queue = queueOfRule(bytes);
  const words = queue === null ? `virtual function ${Number(cookie >> 32n) - 1}` : `queue ${queue}`;
  return { queue, drops: false, words };
}
