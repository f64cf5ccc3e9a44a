// The watch: two samples a while apart, the card the same at both, and the judgement.
import { setTimeout as delay } from "node:timers/promises";
import type { Files } from "../../doctor/files.js";
import { BifurcateError, errnoOf } from "../../errors.js";
import { changesOf } from "../../facts/settings.js";
import type { Kernel, Netns } from "../../kernel.js";
import { readExplainFacts, type Asked } from "../facts.js";
import { takeSample } from "./sample.js";
import { judge, type LiveVerdict } from "./verdict.js";

/** What to watch. */
export interface LiveOptions {
  readonly ifname: string;
  readonly asked: Asked;
  readonly seconds: number;
  /** Where journals are. */
  readonly stateDirectory?: string | undefined;
  /** Called when counting has begun. */
  readonly started?: () => void;
}

/**
 * Counts for a while.
 * @throws E_INTERFACE_GONE, E_CHANGED_UNDERNEATH when the card is not what it was, and those of readExplainFacts.
 */
export async function watchPackets(
  kernel: Kernel,
  netns: Netns,
  files: Files,
  options: LiveOptions,
): Promise<LiveVerdict> {
  const { ifname, asked, seconds } = options;
  const facts = (): ReturnType<typeof readExplainFacts> =>
    readExplainFacts(kernel, netns, files, ifname, asked, options.stateDirectory);
  const first = facts();
  const counting = countRuns(kernel);
  try {
    const before = takeSample(kernel, netns, first);
    options.started?.();
    await delay(seconds * 1000);
    const after = takeSample(kernel, netns, first);
    const changes = changesOf(before.settings, after.settings);
    if (changes.length > 0) {
      throw new BifurcateError("E_CHANGED_UNDERNEATH", {
        what: `count packets on ${ifname}`,
        why: `the card changed meanwhile: ${changes.join("; ")}`,
        next: "Explain the packet again: what was counted belongs to two different cards.",
        data: { changes },
      });
    }
    return judge({ ...first, card: { ...first.card, sockets: after.sockets } }, before, after, seconds);
  } finally {
    counting?.close();
  }
}

/** Without the right to, the program's runs are not counted, and the report says so. */
function countRuns(kernel: Kernel): { close(): void } | null {
  try {
    return kernel.countRuns();
  } catch (thrown) {
    if (errnoOf(thrown) === null) throw thrown;
    return null;
  }
}
