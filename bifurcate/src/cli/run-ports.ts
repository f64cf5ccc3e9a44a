// Runs ports from their opening to their end: shows rates while they run, and closes them whatever happens.

import { createInterface } from "node:readline";
import type { Port } from "../port.js";
import { isSpec } from "../spec.js";
import type { Streams } from "./io.js";
import { RunOutput, type Reading } from "./run-output.js";
import { endByHangUp, Stop } from "./stop.js";

/** Milliseconds between two lines of rates. */
const TELL_MS = 1000;

/** The API, loaded when it is needed: the command line starts without the addon. */
type Api = typeof import("../index.js");

/** What a command's work is given. */
export interface Session {
  readonly api: Api;
  /** Every port so far. */
  readonly ports: readonly Port[];
  /** Aborts when it is to end. */
  readonly signal: AbortSignal;
  /** Notes a port that was opened, so that it is closed in the end. */
  keep(port: Port): Port;
  /** Shows what should not be overlooked; before the introduction it waits for that. */
  warn(text: string): void;
  /** Introduces what was opened; from now on rates are shown, and the time counts. */
  show(introduce: (output: RunOutput, warnings: readonly string[]) => void): void;
}

/** How the run is shown, and when it ends. */
export interface RunSettings {
  readonly json: boolean;
  /** null: until a signal comes. */
  readonly seconds: number | null;
  /** The counters of the ports; there is at least one. */
  read(ports: readonly Port[]): Reading;
}

/**
 * Does the work until it ends, its time is over or a signal comes. Every port is closed when this returns or throws,
 * and every card is as it was.
 */
export async function runPorts(
  settings: RunSettings,
  streams: Streams,
  work: (session: Session) => Promise<void>,
): Promise<void> {
  const api = await import("../index.js");
  // The command ends its ports itself: the summary comes after they are closed.
  api.closeOnSignals(false);
  const stop = new Stop();
  const ports: Port[] = [];
  let output: RunOutput | undefined;
  let failure: unknown;
  const pending: string[] = [];
  let tell: NodeJS.Timeout | undefined;
  const session: Session = {
    api,
    ports,
    signal: stop.signal,
    keep: (port) => (ports.push(port), port),
    warn: (text) => void (output === undefined ? pending.push(text) : output.warn(text)),
    show: (introduce) => {
      const shown = new RunOutput(streams, settings.json, settings.read(ports).total);
      output = shown;
      introduce(shown, pending);
      if (settings.seconds !== null) stop.after(settings.seconds);
      tell = setInterval(() => shown.rates(settings.read(ports)), TELL_MS);
    },
  };
  try {
    await work(session);
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
  if (ports.length > 0) output?.end(stop.reason ?? "ended", settings.read(ports));
  stop.dispose();
  if (stop.reason === "SIGHUP") endByHangUp();
  if (failure !== undefined) throw failure;
}

/** Opens where frames go to: an interface, for sending alone, or a device by its spec. */
export async function openTarget(session: Session, word: string, netns: string | null): Promise<Port> {
  const { api, keep, warn } = session;
  return keep(
    isSpec(word) ? await api.open(word, { onWarning: warn }) : await api.openSender(word, { netns }),
  );
}

/** Says how to confirm, and takes a line on stdin as the confirmation. */
export function askToConfirm(ports: readonly Port[], seconds: number, streams: Streams, json: boolean): void {
  if (!json) streams.err(`press Enter within ${seconds} s to keep it, or it undoes itself\n`);
  const lines = createInterface({ input: process.stdin });
  lines.once("line", () => {
    for (const port of ports) port.confirm();
    lines.close();
    process.stdin.pause();
    if (!json) streams.err("confirmed\n");
  });
  process.stdin.unref?.();
}
