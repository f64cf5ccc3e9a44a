// The kernel's own traffic during a measurement, the far end: a UDP socket that sends back what comes.

import { createSocket } from "node:dgram";
import { ECHO_PORT } from "./packet.js";
import { serve, settings } from "./serve.js";

/** Where it listens. */
export interface EchoSettings {
  readonly address: string;
  readonly ifname: string;
}

const { address, ifname } = settings<EchoSettings>();

await serve(
  async () => {
    const socket = createSocket("udp6");
    socket.on("message", (data, from) => socket.send(data, from.port, from.address));
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.bind(ECHO_PORT, `${address}%${ifname}`, resolve);
    });
    return { tells: null, close: () => socket.close() };
  },
  () => null,
);
