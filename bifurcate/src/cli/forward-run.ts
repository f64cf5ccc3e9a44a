// Joins two ports: what one receives, the other sends, in both directions, until the end.

import { BifurcateError } from "@bifurcate/control/errors";
import type { Counters } from "../native.js";
import type { Port } from "../port.js";
import { isSpec } from "../spec.js";
import { splitOptions, type CardRequest } from "./card-flags.js";
import { jsonLine, type Streams } from "./io.js";
import type { Reading } from "./run-output.js";
import { askToConfirm, runPorts, type Session } from "./run-ports.js";
import { introduceSplit } from "./split-output.js";

/** What is to be joined. */
export interface ForwardRequest {
  /** An interface, which is split, or a device by its spec. */
  readonly ends: readonly [string, string];
  /** How interfaces are split; null where no flow was named, which no interface allows. */
  readonly card: CardRequest | null;
  readonly cores: readonly number[] | undefined;
  readonly seconds: number | null;
  readonly json: boolean;
}

/** Joins the ends until the time is over, a signal comes or an end fails. */
export async function runForward(request: ForwardRequest, streams: Streams): Promise<void> {
  const { ends, card, cores, json, seconds } = request;
  await runPorts({ json, seconds, read: readEnds }, streams, async (session) => {
    for (const end of ends) await openEnd(session, end, card);
    const [a, b] = session.ports as [Port, Port];
    session.show((output, warnings) => {
      if (json) {
        const ports = [a, b].map(({ name, id, path, bypasses }) => ({ name, id, path, bypasses }));
        streams.out(jsonLine({ event: "forward", pid: process.pid, ports, warnings }));
        return;
      }
      for (const port of [a, b]) {
        if (port.id === null) output.introducePort(port);
        else introduceSplit(output, { device: port.name, ...card!, ...splitFacts(port) });
      }
      for (const warning of warnings) streams.err(`warning: ${warning}\n`);
      streams.out("  joined in both directions; Ctrl-C ends it and puts everything back\n");
    });
    const splits = [a, b].filter(({ id }) => id !== null);
    const confirmSeconds = card?.confirmSeconds ?? null;
    if (confirmSeconds !== null && splits.length > 0) askToConfirm(splits, confirmSeconds, streams, json);
    await join(a, b, cores, session.signal);
  });
}

function splitFacts({ id, path, bypasses }: Port): Pick<Port, "id" | "path" | "bypasses"> & { warnings: [] } {
  return { id, path, bypasses, warnings: [] };
}

/** Splits an interface, or opens a device by its spec. */
async function openEnd(session: Session, end: string, card: CardRequest | null): Promise<void> {
  const { api, keep, warn } = session;
  if (isSpec(end)) {
    keep(await api.open(end, { onWarning: warn }));
    return;
  }
  // The flags' reader has refused an interface without a flow.
  if (card === null)
    throw new BifurcateError("E_NO_FLOW", { what: `split ${end}`, why: "no flow was named" });
  // Through a broker, what the other end sends has addresses of its own.
  keep(await api.split(end, { ...splitOptions(card, warn), transmit: "raw" }));
}

/** Both directions; when one ends, by whatever, so does the other. */
async function join(
  a: Port,
  b: Port,
  cores: readonly number[] | undefined,
  signal: AbortSignal,
): Promise<void> {
  const either = new AbortController();
  const end = (): void => either.abort();
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  const one = (from: Port, to: Port): Promise<void> =>
    from.runNative("forward", { to, cores, signal: either.signal }).finally(end);
  try {
    const ended = await Promise.allSettled([one(a, b), one(b, a)]);
    for (const each of ended) if (each.status === "rejected") throw each.reason;
  } finally {
    signal.removeEventListener("abort", end);
  }
}

/** Both ports' counters, a row each. */
function readEnds(ports: readonly Port[]): Reading {
  const rows = ports.map((port) => [port.name, port.stats] as const);
  const total = rows.map(([, stats]) => stats as Counters).reduce(sum);
  return { total, rows, json: { ports: rows.map(([name, stats]) => ({ name, stats })) } };
}

/** Added up. */
function sum(a: Counters, b: Counters): Counters {
  const keys = Object.keys(a).filter((key) => key !== "queues") as (keyof Counters)[];
  return Object.fromEntries(keys.map((key) => [key, a[key] + b[key]])) as unknown as Counters;
}
