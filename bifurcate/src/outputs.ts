// Other ports that a handler sends out of: what a run is given, and the numbers that reach the native side.

import { BifurcateError, errnoOf, messageOf, type ErrorCode } from "@bifurcate/control/errors";
import type { NativeQueue } from "./native.js";

/** What a run can send out of: another Port. */
export interface RunOutput {
  /** The interface's name. */
  readonly name: string;
  /** @internal The number by which the native side knows the port. */
  readonly nativeId: number;
}

/** Hands a queue to the calling thread. */
export type TakeQueue = (portId: number, queue: number, outputs?: number[] | null) => NativeQueue;

/** Ports that a verdict reaches beside the run's own; their numbers fit a byte. */
const OUTPUTS_MAX = 255;

/**
 * The outputs' numbers for the native side; null when none were given.
 * @param name The port's name, and `id` its own number.
 * @throws E_BAD_OPTION
 */
export function outputIds(
  name: string,
  id: number,
  outputs: readonly RunOutput[] | undefined,
): number[] | null {
  if (outputs === undefined) return null;
  const refuse = (why: string): BifurcateError =>
    new BifurcateError("E_BAD_OPTION", { what: `run a handler on ${name}`, why });
  if (outputs.length > OUTPUTS_MAX) throw refuse(`a run has at most ${OUTPUTS_MAX} outputs`);
  return outputs.map((output, index) => {
    const other: unknown = (output as Partial<RunOutput> | null)?.nativeId;
    if (typeof other !== "number") throw refuse(`outputs[${index}] is no Port`);
    if (other === id) throw refuse(`outputs[${index}] is the port itself, which is number 0 anyway`);
    return other;
  });
}

/** Takes a queue and opens its outputs. @throws E_ALREADY_RUNNING, E_CLOSED: the port's own, or an output's. */
export function takeFor(
  takeQueue: TakeQueue,
  name: string,
  id: number,
  place: number,
  outputs: number[] | null,
): NativeQueue {
  try {
    return takeQueue(id, place, outputs);
  } catch (thrown) {
    const codes: Partial<Record<string, ErrorCode>> = { EBUSY: "E_ALREADY_RUNNING", ENOENT: "E_CLOSED" };
    const code = codes[errnoOf(thrown) ?? ""];
    if (code === undefined) throw thrown;
    const what = `run a handler on queue ${place} of ${name}`;
    throw new BifurcateError(code, { what, why: messageOf(thrown), cause: thrown });
  }
}
