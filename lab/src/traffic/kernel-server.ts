// Ordinary services of the host, on the kernel's sockets: HTTP over TCP, and an echo over UDP.
//
//   node kernel-server.js         listens on port 80 (HTTP) and 7 (echo), IPv4 and IPv6; says "ready" on stdout

import { createSocket } from "node:dgram";
import { createServer } from "node:http";

/** What each HTTP request gets: enough to be cut into many TCP segments. */
const page = Buffer.alloc(256 * 1024, "the kernel keeps the card. ");

const http = createServer((_, response) => response.end(page));
const echo = createSocket({ type: "udp6", ipv6Only: false });
echo.on("message", (message, from) => echo.send(message, from.port, from.address));

const ready = [
  new Promise<void>((resolve) => http.listen(80, "::", resolve)),
  new Promise<void>((resolve) => echo.bind(7, "::", resolve)).then(() => {
    // As much as net.core.rmem_max allows: what is lost beside a split is to be the split's fault, not this process's.
    echo.setRecvBufferSize(4 << 20);
  }),
];
const stop = (): void => process.exit(0);
process.on("SIGINT", stop).on("SIGTERM", stop);
process.stdin.on("end", stop).on("error", stop).resume();
void Promise.all(ready).then(() => process.stdout.write("ready\n"));
