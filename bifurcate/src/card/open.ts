// Opens a card taken whole: our own driver in place of the kernel's.

import { openPci, takeQueue } from "@bifurcate/addon";
import { BifurcateError, messageOf, rxMetadata, wrapError } from "@bifurcate/control";
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
import { parseCardSpec, type CardSpec } from "./spec.js";
import { watchCard } from "./watch.js";

/**
 * Opens a card that is bound to its mechanism's driver (`bifurcate take`).
 * @param options `tap`: a pcapng file to write every received and sent frame to; `flows`, `exception`: see OpenOptions.
 * @throws E_BAD_OPTION, E_NO_MEMORY_PROTECTION, E_NO_SUCH_CARD, E_CARD_NOT_TAKEN, E_CARD_BUSY, E_CARD_GROUP, E_CARD_UNKNOWN, E_CARD_FAILED,
 *   E_NO_MEMORY, E_NOT_PRIVILEGED.
 */
export function openCard(word: string, options: CardOptions = {}): Port {
  const spec = parseCardSpec(word);
  const { tap, flows = [], exception = false } = options;
  const what = `open ${word}`;
  checkProtection(what, spec.via, spec.noMemoryProtection, "noMemoryProtection=yes");
  const filter = flows.length === 0 ? {} : { filter: encodeProgram(compileAny(flows).program) };
  let native: OpenedCard;
  try {
    native = withTapFile(tap, () =>
      openPci({ ...spec, pages: "auto", ...filter, ...(tap === undefined ? {} : { tap }) }),
    );
  } catch (thrown) {
    throw cardError(thrown, what);
  }
  try {
    const notes = [
      ...steer(native, flows),
      ...(exception === false ? [] : standIn(native, spec.address, exception)),
    ];
    return cardPort(native, spec, notes);
  } catch (thrown) {
    void native.close(0);
    throw wrapError(thrown, what);
  }
}

/** What of OpenOptions a card knows. */
export type CardOptions = Pick<OpenOptions, "tap" | "flows" | "exception">;

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

function cardPort(native: NativePort, spec: CardSpec, more: readonly string[]): Port {
  const notes = [
    ...(protectsMemory(spec.via)
      ? []
      : [
          `${spec.via} has no memory protection: the card can reach all memory, and so can whoever drives it`,
        ]),
    ...more,
  ];
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
        notes,
      },
      id: null,
      bypasses: ["the kernel: the card is taken whole"],
      confirm: () => undefined,
      look: () => watch.look(),
      close: async (shut) => {
        watch.stop();
        await shut();
      },
    },
  );
  const watch = watchCard(port, native);
  return port;
}
