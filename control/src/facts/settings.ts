// The settings of a card that have to stay as they are for two looks at it to be compared.
import type { Link, Netns } from "../kernel.js";

/** Settings by a name for people. */
export type Settings = Readonly<Record<string, string>>;

/** The settings now. */
export function settingsOf(netns: Netns, link: Link): Settings {
  const { name } = link;
  const channels = netns.channels(name);
  return {
    "up and carrier": `${link.up} ${link.carrier}`,
    MTU: `${link.mtu}`,
    "XDP program": link.xdp === null ? "none" : `${link.xdp.programId} (${link.xdp.mode})`,
    queues: channels === null ? `${link.rxQueues}` : `${channels.now.combined + channels.now.rx}`,
    "RSS table": JSON.stringify(netns.rss(name)),
    "ntuple rules": (netns.ntupleRules(name) ?? []).map((rule) => rule.location).join(" "),
  };
}

/** What changed between two looks: "MTU: 1500, now 9000". */
export function changesOf(before: Settings, after: Settings): string[] {
  return Object.entries(before)
    .filter(([name, value]) => after[name] !== value)
    .map(([name, value]) =>
      name === "RSS table" ? "the RSS table" : `${name}: ${value || "none"}, now ${after[name] || "none"}`,
    );
}
