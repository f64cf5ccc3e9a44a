// Ping-like traffic for the kernel's path: a datagram goes to the echo service, and has to come back as it was.
//
//   node echo-client.js HOST...

import { createSocket } from "node:dgram";
import { traffic } from "./count.js";

function echoer(host: string): (n: number) => Promise<number> {
  const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
  let heard: (message: string) => void = () => undefined;
  socket.on("message", (message) => heard(message.toString()));
  socket.on("error", () => undefined);
  return (n) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("no echo within 20 seconds")), 20_000);
      heard = (message) => {
        if (message !== `ping ${n}`) return;
        clearTimeout(timer);
        resolve(message.length);
      };
      socket.send(`ping ${n}`, 7, host);
    });
}

await traffic(process.argv.slice(2).map(echoer), 50);
