// For tests: what a broker asks of the kernel beyond a card's settings, as a model: programs, maps with names, sockets.
import { existsSync, statSync, writeFileSync } from "node:fs";
import { FakeRefusal, type FakeKernel } from "../../testing/fake-kernel.js";
import type { BrokerKernel, BrokerNetns, Descriptor, Link, Locals, PinnableMap } from "../machine.js";

/** A broker's surroundings, and what there is of them now. */
export interface FakeBroker {
  readonly kernel: BrokerKernel;
  readonly netns: BrokerNetns;
  readonly machine: Locals;
  /** Sockets that were asked for, in order. */
  readonly bound: { ifname: string; queues: number[]; zeroCopy: string; transmit: boolean }[];
  /** What has not been taken away. */
  left(): { attached: number; maps: number; sockets: number; pins: number; descriptors: number };
  /** Whether a card that was lent reaches its memory. */
  reaches(): boolean;
  /** Whether the memory of a card that was lent last is there still, for whoever keeps its file. */
  resident(): boolean;
  /** Somebody holds a socket of that queue from now on. */
  hold(queue: number): void;
  letGo(queue: number): void;
  /** Closes the broker's own sockets, as the end of its process does. */
  closeSockets(): void;
  /** From now on nothing is done any more once `dead` is true; until the returned function is called. */
  killable(dead: () => boolean): () => void;
}

/** In the place of a queue's number: the whole card. */
export const WHOLE_CARD = -1;

/** Makes one over a model of cards. */
export function fakeBroker(cards: FakeKernel): FakeBroker {
  const bound: FakeBroker["bound"] = [];
  const held = new Set<number>();
  const open = new Set<object>();
  const attached = new Set<object>();
  const descriptors = new Set<object>();
  const maps = new Set<object>();
  const pinned = new Map<string, object>();
  let reached = false;
  let resident = false;
  let dead = (): boolean => false;
  let next = 1;
  const alive = (call: string): void => {
    if (dead()) throw new FakeRefusal(call, "EINTR");
  };
  const pin = (path: string, what: object): void => {
    alive("pin");
    writeFileSync(path, "");
    pinned.set(path, what);
  };
  /** Names that are still there: a file that was removed takes its name along. */
  const named = (what: object): boolean =>
    [...pinned].some(([path, each]) => each === what && existsSync(path) && statSync(path).isFile());
  const sweep = (): void => {
    for (const link of attached) if (!open.has(link) && !named(link)) attached.delete(link);
    for (const map of maps) if (!open.has(map) && !named(map)) maps.delete(map);
  };
  const map = (): PinnableMap => {
    const entries = new Map<string, Uint8Array>();
    const key = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
    const made: PinnableMap = {
      id: next++,
      update: (at, value) => {
        alive("bpf(MAP_UPDATE)");
        entries.set(key(at), value);
      },
      delete: (at) => {
        alive("bpf(MAP_DELETE)");
        if (!entries.delete(key(at))) throw new FakeRefusal("bpf(MAP_DELETE)", "ENOENT");
      },
      lookup: (at) => entries.get(key(at)) ?? null,
      pin: (path) => pin(path, made),
      descriptor: () => descriptor(),
      close: () => void open.delete(made),
    };
    open.add(made);
    maps.add(made);
    return made;
  };
  const descriptor = (): Descriptor => {
    const made = { number: next++, close: () => void open.delete(made) };
    open.add(made);
    descriptors.add(made);
    return made;
  };
  const link = (): Link => {
    const made: Link = {
      attached: () => attached.has(made),
      close: () => void open.delete(made),
      pin: (path) => pin(path, made),
      update: () => alive("bpf(LINK_UPDATE)"),
    };
    open.add(made);
    attached.add(made);
    return made;
  };
  const reopen = <T extends object>(path: string): T => {
    const found = pinned.get(path);
    if (found === undefined) throw new FakeRefusal("bpf(OBJ_GET)", "ENOENT");
    open.add(found);
    return found as T;
  };
  const sockets = new Set<object>();
  const refuse = (call: string) => (): never => {
    throw new FakeRefusal(call, "EPERM");
  };
  const netns: BrokerNetns = {
    ...cards.netns,
    attachXdp: () => {
      alive("bpf(LINK_CREATE)");
      return link();
    },
    attachTcIngress: refuse("bpf(LINK_CREATE)"),
    createVeth: refuse("netlink(RTM_NEWLINK)"),
    setLink: refuse("netlink(RTM_SETLINK)"),
    moveLink: refuse("netlink(RTM_SETLINK)"),
    createTap: refuse("ioctl(TUNSETIFF)"),
    watchLinks: refuse("netlink"),
    isQueueHeld: (_, queue) => held.has(queue),
    createLeaseSockets: ({ ifname, queues, zeroCopy }, transmit) => {
      alive("bind(AF_XDP)");
      bound.push({ ifname, queues, zeroCopy, transmit });
      const made = queues.map(descriptor);
      for (const each of made) sockets.add(each);
      return {
        sockets: made,
        memory: descriptor(),
        filled: 64,
        obtained: {
          zeroCopy: zeroCopy !== "off",
          needWakeup: true,
          multiBuffer: false,
          busyPoll: false,
          pages: "ordinary",
          refused: [],
        },
      };
    },
  };
  const kernel: BrokerKernel = Object.assign(Object.create(cards) as FakeKernel, {
    openNetns: () => netns,
    createMap: () => {
      alive("bpf(MAP_CREATE)");
      return map();
    },
    loadProgram: () => {
      alive("bpf(PROG_LOAD)");
      return { id: next++, testRun: refuse("bpf(BPF_PROG_TEST_RUN)"), close: () => undefined };
    },
    pinnedMap: (path: string) => reopen<PinnableMap>(path),
    openName: refuse("open"),
    pinnedLink: (path: string) => reopen<Link>(path),
    isVirtualDriver: () => false,
    lendCard: async () => {
      alive("open(vfio)");
      const loan = { revoke: () => void (reached = false), close: () => undefined };
      const kept = { discard: () => void (resident = false), close: () => undefined };
      reached = resident = true;
      return { device: descriptor(), memory: descriptor(), iova: 2 ** 32, ringsAt: 2 ** 21, loan, kept };
    },
    isCardHeld: () => held.has(WHOLE_CARD),
    lookAtCard: async () => held.has(WHOLE_CARD),
  });
  const process = { onEnd: () => undefined, kill: () => undefined, close: () => undefined };
  const machine = {
    listen: refuse("bind"),
    connect: refuse("connect"),
    process: () => process,
  } as unknown as Locals;
  return {
    kernel,
    netns,
    machine,
    bound,
    left: () => {
      sweep();
      const there = [...sockets].filter((each) => open.has(each)).length;
      const pins = [...pinned.keys()].filter((path) => existsSync(path)).length;
      const passed = [...descriptors].filter((each) => open.has(each)).length;
      return { attached: attached.size, maps: maps.size, sockets: there, pins, descriptors: passed };
    },
    reaches: () => reached,
    resident: () => resident,
    hold: (queue) => void held.add(queue),
    letGo: (queue) => void held.delete(queue),
    closeSockets: () => open.clear(),
    killable: (so) => {
      dead = so;
      return () => {
        dead = () => false;
      };
    },
  };
}
