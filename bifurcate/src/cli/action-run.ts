// What --do says, done on a port: a handler in Rust or a file, with the ports that it sends out of.

import type { Port, PortStats } from "../port.js";
import type { Action } from "./options.js";
import type { Reading } from "./run-output.js";
import { openTarget, type Session } from "./run-ports.js";

/** What is to be done with a port's frames. */
export interface ActionRequest {
  readonly action: Action;
  /** What a handler file sends out of, by `batch.send(length, 1)` and so on. */
  readonly outputs: readonly string[];
  readonly cores: readonly number[] | undefined;
  /** Where interfaces to send out of are. */
  readonly netns: string | null;
  readonly json: boolean;
}

/** Opens what is sent out of, and runs the action until the session's signal. */
export async function runAction(session: Session, port: Port, request: ActionRequest): Promise<void> {
  const { action, outputs: words, cores, netns, json } = request;
  const { signal } = session;
  const outputs: Port[] = [];
  for (const word of action.kind === "forward" ? [action.to] : words) {
    outputs.push(await openTarget(session, word, netns));
  }
  // With --json each line of stdout is an object of ours: what the handler prints goes to stderr.
  const stdout = json ? process.stderr : undefined;
  if (action.kind === "run") await port.run({ file: action.file, cores, stdout }, { signal, outputs });
  else await port.runNative(action.kind, { cores, to: outputs[0], signal });
}

/** The counters of the first port, a row a queue; what was sent out of the others counts as sent. */
export function readAction(ports: readonly Port[]): Reading {
  const [{ path, card }] = ports as [Port];
  const stats = statsOf(ports);
  const rows = stats.queues.map((each, n) => [`queue ${path.queues[n] ?? n}`, each] as const);
  return { total: stats, rows, json: card === null ? { stats } : { stats, card } };
}

function statsOf([port, ...outputs]: readonly Port[]): PortStats {
  return outputs.reduce((sum, { stats }) => {
    const { sent, sentBytes, ringFull } = stats;
    return {
      ...sum,
      sent: sum.sent + sent,
      sentBytes: sum.sentBytes + sentBytes,
      ringFull: sum.ringFull + ringFull,
    };
  }, port!.stats);
}
