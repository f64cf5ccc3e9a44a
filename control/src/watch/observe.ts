// What the card and the sockets are like now, for a running split to look at.
import { errnoOf } from "../errors.js";
import type { Channels, Link, Netns } from "../kernel.js";
import type { Plan, Step } from "../steering/plan.js";
import { holds } from "../transaction/change.js";

/** One look at a running split. */
export interface Observation {
  /** The device by its number in its namespace, null where it is not there any more. */
  readonly link: Link | null;
  readonly channels: Channels | null;
  /** For each step of the plan, whether its setting still has the plan's value. */
  readonly stepsHold: readonly boolean[];
  /** The split's XDP program (or packet sockets) still attached. */
  readonly attached: boolean;
  /** Queues of the path whose socket has died. */
  readonly deadQueues: readonly number[];
}

/** What only the owner of the sockets and the program knows. */
export interface OwnState {
  readonly attached: boolean;
  readonly deadQueues: readonly number[];
}

/** Takes one look. Throws what the kernel answered where it is not that the device is gone. */
export function observe(netns: Netns, plan: Plan, own: OwnState): Observation {
  const gone: Observation = { link: null, channels: null, stepsHold: plan.steps.map(() => false), ...own };
  const links = netns.links();
  const link = links.find((each) => each.index === plan.device.ifindex);
  if (link === undefined) return gone;
  try {
    const nameOf = (step: Step): string | undefined =>
      links.find((each) => each.index === step.device.ifindex)?.name;
    return {
      link,
      channels: netns.channels(link.name)?.now ?? null,
      stepsHold: plan.steps.map((step) => {
        const name = nameOf(step);
        return name !== undefined && holds(netns, name, step.apply);
      }),
      ...own,
    };
  } catch (thrown) {
    // Renamed or deleted between two calls: the next look tells which.
    if (errnoOf(thrown) === "ENODEV") return gone;
    throw thrown;
  }
}
