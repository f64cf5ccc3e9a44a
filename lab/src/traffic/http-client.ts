// TCP traffic for the kernel's path: downloads a page over HTTP again and again, and counts what came whole.
//
//   node http-client.js HOST...

import { Agent, get } from "node:http";
import { traffic } from "./count.js";

const agent = new Agent({ keepAlive: true, maxSockets: 16 });

function download(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = get({ host, port: 80, agent, timeout: 20_000 }, (response) => {
      let bytes = 0;
      response.on("data", (chunk: Buffer) => (bytes += chunk.length));
      response.on("end", () =>
        response.complete && response.statusCode === 200
          ? resolve(bytes)
          : reject(new Error(`HTTP status ${response.statusCode}, ${bytes} bytes`)),
      );
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("no answer within 20 seconds")));
    request.on("error", reject);
  });
}

await traffic(
  process.argv.slice(2).map((host) => () => download(host)),
  // The demo shows that the kernel's path works, not how fast it is: leave the processor to others.
  20,
);
