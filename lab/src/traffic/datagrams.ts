// A paced stream of UDP datagrams to an echo service, each once, each to come back: what is lost stays visible.
//
//   node datagrams.js STREAM
//
// STREAM is a JSON object, as `Stream` below has it. Prints {"sent","echoed","beside"} when all are back, or when none
// came for so long as a service may take to come up, since what waits in its rings is not lost.

import { createSocket, type Socket } from "node:dgram";

/** What is to be sent. */
export interface Stream {
  readonly host: string;
  readonly port: number;
  readonly count: number;
  /** Datagrams a second. */
  readonly rate: number;
  /** Bytes of payload. */
  readonly size: number;
  /** Seconds without an echo after which the rest counts as lost. */
  readonly quiet: number;
  /** Addresses to send from, in turn; the kernel's choice when empty. */
  readonly sources: readonly string[];
  /** Nobody echoes them: they are sent, and that is all. */
  readonly oneWay?: boolean;
  /** So many more before each datagram, to another port, which nobody echoes: the echo tells that they have arrived. */
  readonly beside?: { readonly port: number; readonly each: number };
}

/** The most datagrams that are sent at once. */
const BURST = 32;

/**
 * The most datagrams that are under way, and bytes of them. A card's ring has a few hundred places, and one that is full
 * loses what comes: were the service, or the processor that empties the ring, to stand still for a while, a stream that
 * waits for nobody would lose datagrams of which nobody is to blame.
 */
const UNDER_WAY = 64;
const BYTES_UNDER_WAY = 96_000;

const stream = JSON.parse(process.argv[2] ?? "{}") as Stream;
const { host, port, count, rate, quiet, sources, oneWay = false, beside = { port: 0, each: 0 } } = stream;
const size = Math.max(4, stream.size);
const window = Math.max(1, Math.floor(Math.min(UNDER_WAY, BYTES_UNDER_WAY / size) / (1 + beside.each)));

let heardAt = Date.now();
const echoed = new Set<number>();
/** Datagrams that the kernel has taken, or refused. */
let handed = 0;

async function open(source: string | undefined): Promise<Socket> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind({ address: source ?? "0.0.0.0", port: 0 }, resolve));
  socket.setRecvBufferSize(4 << 20);
  socket.on("error", () => undefined);
  socket.on("message", (message) => {
    heardAt = Date.now();
    echoed.add(message.readUInt32BE(0));
  });
  return socket;
}

function send(sockets: readonly Socket[]): void {
  let tickAt = Date.now();
  let sent = 0;
  let owed = 0;
  const isOver = (): boolean => {
    if (handed < sent * (1 + beside.each)) return false;
    if (oneWay) return sent === count;
    return echoed.size === count || Date.now() - heardAt >= quiet * 1000;
  };
  const timer = setInterval(() => {
    // What a sleep of this process kept back is not sent in a burst.
    owed = Math.min(BURST, owed + ((Date.now() - tickAt) / 1000) * rate);
    tickAt = Date.now();
    const allowed = oneWay ? count : Math.min(count, echoed.size + window);
    const due = Math.min(allowed, sent + Math.floor(owed));
    for (; sent < due; sent++) {
      const payload = Buffer.alloc(size, 0x62);
      payload.writeUInt32BE(sent, 0);
      const socket = sockets[sent % sockets.length]!;
      const taken = (): void => void (handed += 1);
      for (let n = 0; n < beside.each; n++) socket.send(payload, beside.port, host, taken);
      socket.send(payload, port, host, taken);
      owed -= 1;
      heardAt = Date.now();
    }
    if (!isOver()) return;
    clearInterval(timer);
    const seen = { sent, echoed: echoed.size, beside: sent * beside.each };
    process.stdout.write(`${JSON.stringify(seen)}\n`);
    for (const socket of sockets) socket.close();
  }, 2);
}

void Promise.all(sources.length === 0 ? [open(undefined)] : sources.map(open)).then(send);
