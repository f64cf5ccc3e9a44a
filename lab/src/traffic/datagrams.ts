// A paced stream of UDP datagrams to an echo service, each once, each to come back: what is lost stays visible.
//
//   node datagrams.js HOST PORT COUNT RATE SIZE QUIET [SOURCE...]
//
// RATE a second; SIZE bytes of payload; from each source in turn. Prints {"sent","echoed"} when all are back, or none
// came for QUIET seconds: as long as a service may take to come up, since what waits in its rings is not lost.

import { createSocket, type Socket } from "node:dgram";

/** The most datagrams that are sent at once. */
const BURST = 32;

const [host = "", port, count, rate, size, quiet, ...sources] = process.argv.slice(2);
const [total, perSecond, length] = [Number(count), Number(rate), Math.max(4, Number(size))];

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

let heardAt = 0;
const echoed = new Set<number>();
function stream(sockets: readonly Socket[]): void {
  let tickAt = Date.now();
  let sent = 0;
  let owed = 0;
  const timer = setInterval(() => {
    // What a sleep of this process kept back is not sent in a burst: a card's ring has a few hundred places.
    owed = Math.min(BURST, owed + ((Date.now() - tickAt) / 1000) * perSecond);
    tickAt = Date.now();
    const due = Math.min(total, sent + Math.floor(owed));
    owed -= due - sent;
    for (; sent < due; sent++) {
      const payload = Buffer.alloc(length, 0x62);
      payload.writeUInt32BE(sent, 0);
      sockets[sent % sockets.length]!.send(payload, Number(port), host);
      heardAt = Date.now();
    }
    if (sent < total || (echoed.size < total && Date.now() - heardAt < Number(quiet) * 1000)) return;
    clearInterval(timer);
    process.stdout.write(`${JSON.stringify({ sent, echoed: echoed.size })}\n`);
    for (const socket of sockets) socket.close();
  }, 2);
}

void Promise.all(sources.length === 0 ? [open(undefined)] : sources.map(open)).then(stream);
