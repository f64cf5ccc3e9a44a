// Opens a card taken whole: our own driver in place of the kernel's.

import { openLentCard, openPci, takeQueue } from "@bifurcate/addon";
import { BifurcateError, messageOf, wrapError } from "@bifurcate/control/errors";
import { rxMetadata } from "@bifurcate/control/steering/metadata";
import { machineBus } from "@bifurcate/control/card/bus";
import { cardError } from "@bifurcate/control/card/errors";
import { checkProtection, protectsMemory } from "@bifurcate/control/card/mechanism";
import { readRecord } from "@bifurcate/control/card/record";
import { lookUp } from "@bifurcate/control/card/take";
import { nativeCardNetns } from "@bifurcate/control/native";
import { cardFilters } from "@bifurcate/control/steering/card-filters";
import { compileAny, encodeProgram } from "@bifurcate/control/steering/rules/index";
import type { NativePort } from "../native.js";
import type { OpenOptions } from "../open.js";
import { Port } from "../port.js";
import { withTapFile } from "../tap-file.js";
import { leaseCard } from "./lease.js";
import { parseCardSpec, type CardSpec } from "./spec.js";
import { watchCard } from "./watch.js";

/**
 * Opens a card that is bound to its mechanism's driver (`bifurcate take`), itself or through a broker.
 * @param options `tap`: a pcapng file to write every received and sent frame to; `flows`, `exception`: see OpenOptions.
 * @throws E_BAD_OPTION, E_NO_MEMORY_PROTECTION, E_NO_SUCH_CARD, E_CARD_NOT_TAKEN, E_CARD_BUSY, E_CARD_GROUP, E_CARD_UNKNOWN, E_NO_INTERRUPT,
 *   E_CARD_FAILED, E_NO_MEMORY, E_NOT_PRIVILEGED; with via=broker what leaseCard throws.
 */
export async function openCard(word: string, options: CardOptions = {}): Promise<Port> {
  const spec = parseCardSpec(word);
  const { tap, flows = [], exception = false } = options;
  const what = `open ${word}`;
  if (spec.broker) return openLeased(spec, what, options);
  checkProtection(what, spec.via, spec.noMemoryProtection, "noMemoryProtection=yes");
  let native: OpenedCard;
  try {
    native = withTapFile(tap, () => openPci(nativeOptions(spec, options)));
  } catch (thrown) {
    throw cardError(thrown, what);
  }
  try {
    const notes = [
      ...steer(native, flows),
      ...(exception === false ? [] : standIn(native, spec.address, exception)),
    ];
    return cardPort(native, spec, [...unprotected(spec), ...notes], IN_PROCESS);
  } catch (thrown) {
    void native.close(0);
    throw wrapError(thrown, what);
  }
}

/** What the addon is told of a card. */
function nativeOptions(spec: CardSpec, { tap, flows = [] }: CardOptions): Parameters<typeof openPci>[0] {
  const filter = flows.length === 0 ? {} : { filter: encodeProgram(compileAny(flows).program) };
  return { ...spec, pages: "auto", ...filter, ...(tap === undefined ? {} : { tap }) };
}

async function openLeased(spec: CardSpec, what: string, options: CardOptions): Promise<Port> {
  const { tap, flows = [], exception, onWarning } = options;
  if (exception !== undefined && exception !== false) {
    const why = "a lease of a card has no way into the kernel: exception";
    throw new BifurcateError("E_BAD_OPTION", { what, why, data: { option: "exception" } });
  }
  if (spec.jumboFrames > 0) {
    const why = "the memory of a leased card has no jumbo frames";
    throw new BifurcateError("E_BAD_OPTION", { what, why, next: "Leave jumboFrames out." });
  }
  // First, since a flow that is none is refused by it: nothing is leased then.
  const asked = nativeOptions(spec, options);
  const leased = await leaseCard(spec, what, (lent, ...descriptors) =>
    withTapFile(tap, () => openLentCard(asked, lent, ...descriptors)),
  );
  const { native, lease, hold } = leased;
  let port: Port;
  try {
    port = cardPort(native, spec, [...lease.notes, ...steer(native, flows)], {
      id: lease.id,
      bypasses: lease.bypasses,
      ended: () => hold.end(),
    });
  } catch (thrown) {
    // The card is quiet before its lease ends.
    await native.close(0).catch(() => undefined);
    await hold.end();
    throw wrapError(thrown, what);
  }
  void hold.lost.then((why) => {
    onWarning?.(`the lease ${lease.id} was taken back: ${why}`);
    const what = `use the lease ${lease.id} of ${lease.device}`;
    port.fail(new BifurcateError("E_LEASE_REVOKED", { what, why }));
  });
  return port;
}

/** What of OpenOptions a card knows. */
export type CardOptions = Pick<OpenOptions, "tap" | "flows" | "exception" | "onWarning">;

type OpenedCard = ReturnType<typeof openPci>;

/**
 * Lets the card itself send the flows to queue 0, where it can: a sieve before the program that decides. Gives what is
 * to be said of it. Nothing to do with one queue.
 */
function steer(native: OpenedCard, flows: readonly string[]): string[] {
  if (native.queues === 1) return [];
  return flows.flatMap((flow) => {
    const filters = cardFilters(flow, 0);
    if (filters === null) return [`the card has no filter for '${flow}': its frames may come on any queue`];
    try {
      for (const filter of filters) native.addFilter(filter);
      return [`the card sends '${flow}' to queue 0`];
    } catch (thrown) {
      return [`the card cannot send '${flow}' to queue 0: ${messageOf(thrown)}`];
    }
  });
}

/** Ethernet's MTU, where nobody knows what the card's interface had. */
const MTU = 1500;

/** A TAP in the place of the interface that the card had, with what stood on it. Gives what is to be said of it. */
function standIn(native: OpenedCard, address: string, exception: true | string): string[] {
  const saved = readRecord(lookUp(machineBus(), address, `find ${address}`).address)?.interfaces[0];
  const name = exception === true ? saved?.name : exception;
  if (name === undefined) {
    const why = "no record says which interface the card had";
    throw new BifurcateError("E_BAD_OPTION", {
      what: "make a TAP for the kernel",
      why,
      next: "Give it a name.",
    });
  }
  const ifindex = native.enableException(name, saved?.mtu ?? MTU);
  if (saved === undefined) return [`the kernel reaches the card through ${name}`];
  const netns = nativeCardNetns();
  try {
    const standing = saved.standing.map((each) => Uint8Array.from(Buffer.from(each, "hex")));
    const left = netns.restoreStanding(standing, saved.index, ifindex);
    return [`the kernel reaches the card through ${name}`, ...left.map((why) => `${name}: ${why}`)];
  } finally {
    netns.close();
  }
}

function unprotected({ via }: CardSpec): string[] {
  if (protectsMemory(via)) return [];
  return [`${via} has no memory protection: the card can reach all memory, and so can whoever drives it`];
}

/** By which right a card is had. */
interface Right {
  /** The lease's; null: this process's own. */
  readonly id: string | null;
  readonly bypasses: readonly string[];
  /** Called when the card is quiet and closed. */
  ended(): Promise<void>;
}

const IN_PROCESS: Right = {
  id: null,
  bypasses: ["the kernel: the card is taken whole"],
  ended: () => Promise.resolve(),
};

function cardPort(native: NativePort, spec: CardSpec, notes: readonly string[], right: Right): Port {
  const port = new Port(
    { native, name: spec.address, takeQueue },
    {
      path: {
        backend: "pci",
        queues: Array.from({ length: native.queues }, (_, queue) => queue),
        mode: "zero-copy",
        xdp: null,
        steering: "none",
        obtained: native.obtained,
        metadata: rxMetadata("pci", []),
        // What was asked for and is not had is said aloud: a port that was to sleep may poll instead.
        notes: [...notes, ...native.obtained.refused],
      },
      id: right.id,
      bypasses: right.bypasses,
      confirm: () => undefined,
      look: () => watch.look(),
      close: async (shut) => {
        watch.stop();
        try {
          await shut();
        } finally {
          await right.ended();
        }
      },
    },
  );
  const watch = watchCard(port, native);
  return port;
}
