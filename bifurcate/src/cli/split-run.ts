// Runs a split from its beginning to its end: opens it, runs the action, shows rates, and closes it whatever happens.

import { createInterface } from "node:readline";
import type { Port, PortStats } from "../port.js";
import type { Streams } from "./io.js";
import type { SplitCommand } from "./split-flags.js";
import { SplitOutput } from "./split-output.js";
import { endByHangUp, Stop } from "./stop.js";

/** Milliseconds between two lines of rates. */
const TELL_MS = 1000;

/**
 * Runs a split until its time is over, a signal comes or the handler fails. The settings of the card are as they
 * were when it returns or throws.
 */
export async function runSplit(request: SplitCommand, streams: Streams): Promise<void> {
  const api = await import("../index.js");
  // The command ends its ports itself: the summary comes after they are closed.
  api.closeOnSignals(false);
  const stop = new Stop();
  const ports: Port[] = [];
  let output: SplitOutput | undefined;
  let failure: unknown;
  const pending: string[] = [];
  const warn = (text: string): void => void (output === undefined ? pending.push(text) : output.warn(text));
  let tell: NodeJS.Timeout | undefined;
  try {
    const port = await api.split(request.device, {
      flows: request.flows,
      queues: request.queues,
      backend: request.backend,
      zeroCopy: request.zeroCopy,
      netns: request.netns,
      force: request.force,
      busyPoll: request.busyPoll,
      via: request.via,
      transmit: request.transmit,
      pass: request.pass,
      steering: request.lease ? "lease" : "auto",
      tap: request.tap,
      metadata: request.metadata,
      confirmSeconds: request.confirmSeconds,
      onWarning: warn,
    });
    ports.push(port);
    output = new SplitOutput(streams, request.json, port.stats);
    const shown = output;
    output.introduce({
      id: port.id,
      device: request.device,
      netns: request.netns,
      flows: request.flows,
      path: port.path,
      warnings: pending,
      bypasses: port.bypasses,
    });
    if (request.confirmSeconds !== null) askToConfirm(port, request.confirmSeconds, streams, request.json);
    if (request.seconds !== null) stop.after(request.seconds);
    tell = setInterval(() => shown.rates(statsOf(ports)), TELL_MS);
    const { action, netns } = request;
    for (const name of action.kind === "forward" ? [action.to] : request.outputs) {
      ports.push(await api.openSender(name, { netns }));
    }
    await act(port, ports.slice(1), request, stop.signal);
    stop.because("ended");
  } catch (error) {
    failure = error;
    stop.because("error");
  }
  clearInterval(tell);
  for (const port of [...ports].reverse()) {
    await port.close().catch((error: unknown) => {
      failure ??= error;
    });
  }
  if (ports.length > 0) output?.end(stop.reason ?? "ended", statsOf(ports), ports[0]!.path);
  stop.dispose();
  if (stop.reason === "SIGHUP") endByHangUp();
  if (failure !== undefined) throw failure;
}

/** The split's counters; what was sent out of other cards counts as sent. */
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

/** Runs what --do says until the signal. */
async function act(
  port: Port,
  outputs: readonly Port[],
  request: SplitCommand,
  signal: AbortSignal,
): Promise<void> {
  const { action, cores, json } = request;
  // With --json each line of stdout is an object of ours: what the handler prints goes to stderr.
  const stdout = json ? process.stderr : undefined;
  if (action.kind === "run") await port.run({ file: action.file, cores, stdout }, { signal, outputs });
  else await port.runNative(action.kind, { cores, to: outputs[0], signal });
}

/** Says how to confirm, and takes a line on stdin as the confirmation. */
function askToConfirm(port: Port, seconds: number, streams: Streams, json: boolean): void {
  if (!json) streams.err(`press Enter within ${seconds} s to keep it, or it undoes itself\n`);
  const lines = createInterface({ input: process.stdin });
  lines.once("line", () => {
    port.confirm();
    lines.close();
    process.stdin.pause();
    if (!json) streams.err("confirmed\n");
  });
  process.stdin.unref?.();
}
