// `bifurcate explain DEV PACKET [--live]`: which stage decides what of a packet, and where real ones vanish.

import { machineFiles } from "@bifurcate/control/doctor/files";
import { BifurcateError } from "@bifurcate/control/errors";
import { explainPacket } from "@bifurcate/control/explain/explain";
import { readExplainFacts, type Asked } from "@bifurcate/control/explain/facts";
import { watchPackets } from "@bifurcate/control/explain/live/observe";
import { frameFromFile, isCaptureFile } from "@bifurcate/control/explain/packet/capture-file";
import { parsePacket } from "@bifurcate/control/explain/packet/line";
import { findLink } from "@bifurcate/control/facts/facts";
import { nativeKernel } from "@bifurcate/control/native";
import { openNetns } from "@bifurcate/control/prepare";
import { jsonLine, type Streams } from "../io.js";
import { parseDuration } from "../options.js";
import { renderExplanation, renderLive } from "../render/explanation.js";
import { reportTo } from "../report.js";

/** The options that a packet takes. */
export interface PacketFlags {
  readonly netns?: string;
  readonly json?: true;
  readonly live?: true;
  readonly seconds?: string;
  readonly packet?: string;
  readonly output?: string;
}

/** Seconds that --live counts for when none are given. */
const SECONDS = "2";

/** Reads PACKET: a line, or packet --packet N of a capture file. */
function readAsked(word: string, flags: PacketFlags): Asked {
  if (!isCaptureFile(word)) {
    if (flags.packet === undefined) return { packet: parsePacket(word) };
    throw badOption(
      "--packet",
      flags.packet,
      "it chooses out of a capture file, and the packet is written out",
    );
  }
  const number = flags.packet ?? "1";
  if (!/^[1-9]\d{0,8}$/.test(number)) throw badOption("--packet", number, "packets count from 1 on");
  return { frame: frameFromFile(word, Number(number)) };
}

function badOption(option: string, value: string, why: string): BifurcateError {
  return new BifurcateError("E_BAD_OPTION", {
    what: `read ${option} '${value}'`,
    why,
    next: "Write for example: bifurcate explain eth0 capture.pcap --packet 3",
    data: { option, value },
  });
}

/** Explains a packet; E_PACKETS_VANISH with --live when they do not get to the end. */
export async function explainOnCard(
  streams: Streams,
  ifname: string,
  word: string,
  flags: PacketFlags,
): Promise<void> {
  const asked = readAsked(word, flags);
  if (flags.seconds !== undefined && flags.live !== true) {
    throw badOption("--seconds", flags.seconds, "it is for how long --live counts");
  }
  const seconds = parseDuration("--seconds", flags.seconds ?? SECONDS);
  const write = reportTo(streams, flags.output);
  const kernel = nativeKernel();
  const netns = openNetns(kernel, flags.netns ?? null);
  const json = flags.json === true;
  try {
    findCard(netns.links(), ifname, word);
    if (flags.live !== true) {
      const explanation = explainPacket(readExplainFacts(kernel, netns, machineFiles, ifname, asked));
      write(json ? jsonLine(explanation) : renderExplanation(explanation));
      return;
    }
    const started = (): void => streams.err(json ? "" : `counting on ${ifname} for ${seconds} s\n`);
    const verdict = await watchPackets(kernel, netns, machineFiles, { ifname, asked, seconds, started });
    write(json ? jsonLine(verdict) : renderLive(verdict));
    if (verdict.vanish === null) return;
    const { stage, complaint } = verdict.vanish;
    throw new BifurcateError("E_PACKETS_VANISH", {
      what: `follow packets through ${ifname}`,
      why: `they vanish at the stage ${stage}: ${complaint.says}`,
      next: complaint.mend ?? undefined,
      data: { stage, complaint: complaint.name },
    });
  } finally {
    netns.close();
  }
}

/** Two words that make an expression, such as `port 53`, are the likeliest mistake: say so. */
function findCard(links: Parameters<typeof findLink>[0], ifname: string, word: string): void {
  try {
    findLink(links, ifname);
  } catch (thrown) {
    if (!(thrown instanceof BifurcateError)) throw thrown;
    throw new BifurcateError(thrown.code, {
      what: thrown.what,
      why: thrown.why,
      next: `${thrown.next} Two words are a card and a packet; an expression goes into quotes: bifurcate explain '${ifname} ${word}'.`,
      data: thrown.data,
    });
  }
}
