// Receiving sides of the veth benches: what they measured, and the two rows that come of it.
import type { LabCard } from "@bifurcate/lab";
import { runJson } from "./native.js";
import { compare, type Result } from "./rows.js";

/** A measured window of receiving: packets a second, CPU time in nanoseconds, and the command. */
export interface Measured {
  readonly packets: number;
  readonly perSecond: number;
  readonly cpu: number;
  readonly command: string;
}

/** Runs the native receiver by itself in the card's namespace on core 1. */
export async function receive(
  program: string,
  card: LabCard,
  seconds: number,
  root: string,
): Promise<Measured> {
  const words = [
    program,
    ...["receive", "--dev", card.ifname, "--netns", card.netns, "--core", "1"],
    ...["--seconds", String(seconds), "--backend", "af_xdp"],
  ];
  const { result, command } = await runJson<{ packets: number; seconds: number; cpuSeconds: number }>(
    words,
    root,
  );
  return {
    packets: result.packets,
    perSecond: result.packets / result.seconds,
    cpu: result.cpuSeconds * 1e9,
    command,
  };
}

/** Runs a program of ours that prints packets, seconds and CPU nanoseconds, such as a subject under Node. */
export async function measured(words: readonly string[], root: string): Promise<Measured> {
  const { result, command } = await runJson<{ packets: number; seconds: number; cpu: number }>(words, root);
  return { packets: result.packets, perSecond: result.packets / result.seconds, cpu: result.cpu, command };
}

/** Packets a second, and process CPU time a packet, of the same runs. */
export function rateAndCpu(
  name: string,
  prefix: string,
  rateTarget: number | null,
  cpuTarget: number | null,
  ours: readonly Measured[],
  peer: readonly Measured[],
): Result[] {
  const rate = (one: Measured) => ({ value: one.perSecond, command: one.command });
  const cost = (one: Measured) => ({ value: one.cpu / Math.max(1, one.packets), command: one.command });
  return [
    compare(
      { name, row: `${prefix}pps`, unit: "packets/s", better: "more", target: rateTarget },
      ours.map(rate),
      peer.map(rate),
    ),
    compare(
      { name, row: `${prefix}cpu`, unit: "ns of CPU a packet", better: "less", target: cpuTarget },
      ours.map(cost),
      peer.map(cost),
    ),
  ];
}
