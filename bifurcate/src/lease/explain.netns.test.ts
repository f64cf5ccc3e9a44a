// Where the packets of a broker's lease go, counted: `explain --live` on a card whose flow a client without rights has.
import type { LiveVerdict } from "@bifurcate/control/explain/live/verdict";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BrokerPlace, NOBODY, opened, type Running } from "../testing/broker.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const POLICY = `
[count]
user = ${NOBODY}
device = card0
flow = udp dst port 53
transmit = none
`;

describe.skipIf(reason !== null)(
  `explain --live of a lease${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let place: BrokerPlace;

    beforeEach(async () => {
      veth = new VethPair();
      place = new BrokerPlace(veth.netns);
      place.write(POLICY);
      await place.start();
    });
    afterEach(async () => {
      await place.remove();
      veth.remove();
    });

    /** Sends datagrams to port 53 all the time, once the first have been sent. */
    async function send(): Promise<void> {
      const script = `
        const socket = require("node:dgram").createSocket("udp4");
        let said = false;
        setInterval(() => {
          for (let n = 0; n < 64; n++) socket.send("x", 53, "${veth.address}", () => {
            if (!said) console.log("sent");
            said = true;
          });
        }, 10);`;
      const sender = place.run([process.execPath, "-e", script], "the sender", veth.peerNetns);
      await sender.line("sent");
    }

    async function client(action: string): Promise<{ running: Running; id: string }> {
      const running = place.client([
        ...["split", veth.card, "--flow", "udp dst port 53", "--transmit", "none"],
        ...["--do", action, "--json"],
      ]);
      return { running, id: (await opened(running)).id };
    }

    async function live(): Promise<LiveVerdict> {
      const packet = `udp 192.0.2.77:4242 > ${veth.address}:53`;
      const args = ["explain", veth.card, packet, "--live", "--seconds", "1", "--json"];
      const running = place.run([process.execPath, ...place.cli(...args)], "explain");
      await running.ended;
      return JSON.parse(running.lines.join("\n")) as LiveVerdict;
    }
    /** Looks for a second, again where the machine has let the sender or the client sleep all that time. */
    async function whileBothRun(check: (verdict: LiveVerdict) => void): Promise<void> {
      await vi.waitFor(async () => check(await live()), { timeout: 100_000, interval: 100 });
    }
    const counted = (verdict: LiveVerdict, stage: string): number | null =>
      verdict.counted.find((each) => each.name === stage)!.packets;

    it("counts what came to the lease's port, and what its client read", async () => {
      const { running, id } = await client("count");
      await send();
      await whileBothRun((verdict) => {
        expect(verdict.vanish).toBeNull();
        for (const stage of ["link", "socket", "lease", "handler"]) {
          expect(counted(verdict, stage), stage).toBeGreaterThan(64);
        }
        expect(verdict.counted.find((each) => each.name === "lease")!.says).toMatch(
          new RegExp(`to the port bff[0-9a-f]{8} of ${id}, 0 dropped there`),
        );
      });
      await running.end("SIGINT");
      // The flow is the kernel's again.
      await place.settled(async () => (await place.leases()).length === 0);
      expect(counted(await live(), "lease")).toBeNull();
    });

    it("names a client that is stuck: frames come to the lease, and nobody reads them", async () => {
      const file = "stuck.mjs";
      place.file(
        file,
        `const never = new Int32Array(new SharedArrayBuffer(4));
         export function handle(batch) { if (batch.next()) Atomics.wait(never, 0, 0); }`,
      );
      await client(`run=${place.path(file)}`);
      await send();
      // First those that the ring has room for; then none is given back.
      await whileBothRun((verdict) => {
        expect(["handler-stalled", "fill-ring-empty", "ring-full"]).toContain(verdict.vanish?.complaint.name);
        expect(counted(verdict, "lease")).toBeGreaterThan(64);
        expect(counted(verdict, "handler")).toBe(0);
      });
    });
  },
);
