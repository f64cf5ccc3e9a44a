// Making what a lease consists of: its sockets on a port or on queues of the card, and the words that go with them.
import { BifurcateError, errnoOf, wrapError } from "../errors.js";
import type { Facts } from "../facts/facts.js";
import type { LeaseRecord } from "../lease/record.js";
import type { GrantedLease, LeaseRequest } from "../protocol/messages.js";
import type { Card } from "./card.js";
import type { Ground } from "./ground.js";
import type { BrokerKernel, BrokerNetns, ClientNetns, Descriptor, LeaseSockets } from "./machine.js";
import { jumboFrames } from "./pool.js";
import { makeForeignPort, makePort, makeWays, socketOptions, type PortCard } from "./port.js";
import { applySteps, applyTable, type Note } from "./settings.js";
import type { Stopwatch } from "./stopwatch.js";

/** Everything that the making of a lease needs to know. */
export interface Opening {
  readonly kernel: BrokerKernel;
  readonly netns: BrokerNetns;
  readonly record: LeaseRecord;
  readonly card: Card;
  readonly about: PortCard;
  readonly facts: Facts;
  readonly ground: Ground;
  readonly rate: number | null;
  /** The client's own network namespace, where its port is to lie in it. */
  readonly client: ClientNetns | null;
  /** Its folder in the BPF file system. */
  readonly folder: string;
  /** Queues that other leases of the card have taken out of its table. */
  readonly carved: readonly number[];
  /** Writes down how far the settings of the card are. */
  readonly note: Note;
  readonly watch: Stopwatch;
}

type MadeSockets = Pick<LeaseSockets, "obtained" | "filled">;

/** What was made: everything that the client gets. */
export interface Opened {
  readonly lease: GrantedLease;
  /** In the order of PROTOCOL.md. */
  readonly descriptors: readonly Descriptor[];
}

/** Makes sockets and pool and turns the flow to them. What it made before it failed, the lease's end takes away. */
export function open(opening: Opening): Opened {
  if (opening.client !== null) return openForeign(opening, opening.client);
  return opening.ground.own === null ? openPort(opening) : openQueues(opening);
}

/** What an outsider's own socket is set to, it sets itself. */
const NOTHING_MADE: MadeSockets = {
  filled: 0,
  obtained: {
    zeroCopy: false,
    needWakeup: true,
    multiBuffer: false,
    busyPoll: false,
    pages: "",
    refused: [],
  },
};

function openForeign(opening: Opening, client: ClientNetns): Opened {
  const { kernel, netns, record, card, about, facts, ground, rate, folder, watch } = opening;
  const { request, names } = record;
  const made = makeForeignPort(kernel, netns, about, names, request, rate, folder, client);
  watch.lap("port in the client's namespace");
  try {
    card.add(record.slot, request.flows, made.near, made.map);
  } catch (thrown) {
    for (const each of made.passed) each.close();
    throw thrown;
  }
  watch.lap("program on the card");
  const virtual = kernel.isVirtualDriver(facts.driver.driver);
  const on = { mechanism: "foreign", port: names.far, portQueues: [0], virtual } as const;
  return { lease: words(record, about, ground, NOTHING_MADE, on), descriptors: made.passed };
}

function openPort({
  kernel,
  netns,
  record,
  card,
  about,
  facts,
  ground,
  rate,
  folder,
  watch,
}: Opening): Opened {
  const { request, names } = record;
  const port = makePort(kernel, netns, about, names, request, rate, folder);
  watch.lap("port and sockets");
  const descriptors = [port.sockets.memory, ...port.sockets.sockets, ...port.ways];
  try {
    card.add(record.slot, request.flows, port.near);
  } catch (thrown) {
    for (const each of descriptors) each.close();
    throw thrown;
  }
  watch.lap("program on the card");
  const virtual = kernel.isVirtualDriver(facts.driver.driver);
  const portQueues = Array.from({ length: request.queues }, (_, queue) => queue);
  const on = { mechanism: "port", port: names.far, portQueues, virtual } as const;
  return { lease: words(record, about, ground, port.sockets, on), descriptors };
}

function openQueues(opening: Opening): Opened {
  const { kernel, netns, record, card, about, facts, ground, folder, carved, note, watch } = opening;
  const { request, names } = record;
  const place = { netns, name: record.card.name, ifindex: record.card.ifindex };
  const { queues } = ground.own!;
  const before = applySteps(place, ground.own!, "before", note);
  applyTable(place, before, carved);
  watch.lap("settings of the card");
  const sockets = bound(opening, queues);
  const made: Descriptor[] = [sockets.memory, ...sockets.sockets];
  try {
    watch.lap("sockets");
    const mac = about.mac.split(":").map((each) => Number.parseInt(each, 16));
    made.push(...makeWays(kernel, netns, about, names, request, mac, folder));
    const pairs = sockets.sockets.map(({ number }, at) => ({ queue: queues[at]!, number }));
    card.addQueues(record.slot, request.flows, pairs);
    watch.lap("program on the card");
    applySteps(place, before, "after", note);
    watch.lap("rules of the card");
  } catch (thrown) {
    for (const each of made) each.close();
    throw thrown;
  }
  const virtual = kernel.isVirtualDriver(facts.driver.driver);
  const on = { mechanism: "queue", port: record.card.name, portQueues: queues, virtual } as const;
  return { lease: words(record, about, ground, sockets, on), descriptors: made };
}

/** @throws E_QUEUE_BUSY, E_NO_ZERO_COPY */
function bound({ netns, record, about, ground }: Opening, queues: readonly number[]): LeaseSockets {
  const { request, card } = record;
  try {
    const options = { ...socketOptions(request, about, card.name), queues: [...queues] };
    const { zeroCopy } = ground;
    return netns.createLeaseSockets({ ...options, zeroCopy, mode: about.mode }, request.transmit !== "none");
  } catch (thrown) {
    const what = `bind sockets to queue ${queues.join(", ")} of ${card.name}`;
    const errno = errnoOf(thrown);
    const refused = ground.zeroCopy === "require" && (errno === "EOPNOTSUPP" || errno === "EINVAL");
    throw wrapError(
      thrown,
      what,
      errno === "EBUSY" ? "E_QUEUE_BUSY" : refused ? "E_NO_ZERO_COPY" : undefined,
    );
  }
}

function words(
  { id, card, request }: LeaseRecord,
  about: PortCard,
  { plan, notes }: Ground,
  { obtained, filled }: MadeSockets,
  on: Pick<GrantedLease, "mechanism" | "port" | "portQueues"> & { readonly virtual: boolean },
): GrantedLease {
  const { mechanism, port, portQueues, virtual } = on;
  return {
    id,
    device: card.name,
    mechanism,
    port,
    portQueues,
    mtu: about.mtu,
    mac: about.mac,
    queues: request.queues,
    transmit: request.transmit,
    pass: request.pass,
    frames: request.frames,
    frameSize: request.frameSize,
    jumboFrames: obtained.multiBuffer ? jumboFrames(request, about) : 0,
    ringSize: request.ringSize,
    filled,
    zeroCopy: obtained.zeroCopy,
    needWakeup: obtained.needWakeup,
    multiBuffer: obtained.multiBuffer,
    busyPoll: obtained.busyPoll,
    leftToCard: virtual || about.mode === "generic",
    xdp: about.mode,
    bypasses: plan.bypasses,
    notes: [...notes, ...obtained.refused.map((why) => `the kernel refused: ${why}`)],
  };
}

/** @throws E_NO_PASS where the card's program would see a passed frame again. */
export function checkPass(what: string, request: LeaseRequest, { plan }: Ground): void {
  if (!request.pass || plan.path.mode !== "generic") return;
  throw new BifurcateError("E_NO_PASS", {
    what,
    why: "the card's program runs in generic mode, and would see a passed frame again",
    next: "Lease without pass, or on a card whose driver has XDP.",
  });
}
