// A stock resolver at work: Node's own (c-ares) asks a server of examples/dns.ts, without rest, and checks answers.
//
//   node resolver.js SERVER...          e.g. 192.0.2.1 2001:db8:1::1
//
// It asks again when it gets no answer, as stock resolvers do: a server that has been quick has 250 ms with c-ares
// (ares_metrics_server_timeout()), whatever that is told, and Node looks each second; a busy machine may need longer.

import { Resolver } from "node:dns/promises";
import { traffic } from "./count.js";

const zone = "bifurcate.test";
/** Resolvers for each server. Each has a socket, so a port of its own, so that the card spreads them over queues. */
const EACH = 4;

function expect(actual: unknown, wanted: unknown): void {
  if (JSON.stringify(actual) === JSON.stringify(wanted)) return;
  throw new Error(`answered ${JSON.stringify(actual)} instead of ${JSON.stringify(wanted)}`);
}

/** A fresh name each time: no cache on the way can answer for the server. */
async function ask(resolver: Resolver, who: number, n: number): Promise<number> {
  const name = `q${n}-${who}.lookup.${zone}`;
  switch (n % 8) {
    case 5: {
      const soa = await resolver.resolveSoa(zone);
      expect(soa.nsname, `ns1.${zone}`);
      return 1;
    }
    case 6: {
      const outcome = await resolver
        .resolve4(`gone${n}.${zone}`)
        .catch((error: NodeJS.ErrnoException) => error.code);
      expect(outcome, "ENOTFOUND");
      return 1;
    }
    case 1:
    case 3:
      expect(await resolver.resolve6(name), ["2001:db8::100"]);
      return 1;
    default:
      expect(await resolver.resolve4(name), ["192.0.2.100"]);
      return 1;
  }
}

const loops = process.argv.slice(2).flatMap((server, s) =>
  Array.from({ length: EACH }, (_, r) => {
    const resolver = new Resolver({ timeout: 2000, tries: 6 });
    resolver.setServers([server.includes(":") ? `[${server}]` : server]);
    return (n: number) => ask(resolver, s * EACH + r, n);
  }),
);
await traffic(loops);
