// Metrics of a broker as Prometheus fetches them: from a port of loopback, from a socket, and from nowhere unless asked for.

import { existsSync, readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BrokerPlace, NOBODY, opened, REQUEST } from "../testing/broker.js";
import { ECHO } from "../testing/echo.js";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const PORT = 9467;
const LOOPBACK = { host: "127.0.0.1", port: PORT };
/** TCP_LISTEN (linux/net/tcp_states.h) and __SO_ACCEPTCON (linux/net.h), as /proc/net shows them. */
const LISTEN = "0A";
const ACCEPTS = "00010000";

/** What an HTTP server answered, or why it did not. */
interface Answer {
  readonly status?: number;
  readonly type?: string;
  readonly lines?: readonly string[];
  readonly code?: string;
}

describe.skipIf(reason !== null)(`metrics${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let place: BrokerPlace;

  beforeEach(() => {
    veth = new VethPair();
    ip("-n", veth.netns, "link", "set", "lo", "up");
    place = new BrokerPlace(veth.netns);
    place.write(`[echo]\nuser = ${NOBODY}\ndevice = card0\nflow = udp dst port 7777\ntransmit = own\n`);
    place.file("echo.mjs", ECHO);
  });
  afterEach(async () => {
    await place.remove();
    veth.remove();
  });

  async function fetched(
    at: typeof LOOPBACK | { readonly socketPath: string },
    path = "/metrics",
    method = "GET",
  ): Promise<Answer> {
    const out = await veth.node(
      veth.netns,
      `const request = require("node:http").request(${JSON.stringify({ ...at, path, method, agent: false })}, (answer) => {
         let text = "";
         answer.on("data", (some) => (text += some));
         const { statusCode: status, headers } = answer;
         answer.on("end", () => console.log(JSON.stringify({ status, type: headers["content-type"], lines: text.split("\\n") })));
       });
       request.on("error", ({ code }) => console.log(JSON.stringify({ code })));
       request.end();`,
    );
    return JSON.parse(out) as Answer;
  }

  /** Where anybody of the broker's namespace listens: TCP addresses in the kernel's hexadecimal, and paths. */
  function listening(): { readonly tcp: string[]; readonly paths: string[] } {
    const rows = (name: string): string[][] =>
      readFileSync(`/proc/${place.pid}/net/${name}`, "utf8")
        .trim()
        .split("\n")
        .slice(1)
        .map((line) => line.trim().split(/\s+/));
    return {
      tcp: [...rows("tcp"), ...rows("tcp6")].filter((row) => row[3] === LISTEN).map((row) => row[1]!),
      paths: rows("unix")
        .filter((row) => row[3] === ACCEPTS)
        .map((row) => row[7] ?? "")
        .sort(),
    };
  }

  function echo() {
    const run = `run=${place.path("echo.mjs")}`;
    return place.client(["split", veth.card, "--flow", "udp dst port 7777", "--do", run, "--json"]);
  }

  it("are served nowhere unless asked for", async () => {
    await place.start();
    expect(listening()).toEqual({ tcp: [], paths: [place.socket] });
    expect(await fetched(LOOPBACK)).toEqual({ code: "ECONNREFUSED" });
  });

  it("are fetched from a port of loopback: what is leased, sent and ended", async () => {
    const broker = await place.startWith("--metrics", `${LOOPBACK.host}:${PORT}`);
    await expect
      .poll(listening, { timeout: 50_000 })
      .toEqual({ tcp: ["0100007F:24FB"], paths: [place.socket] });
    const client = echo();
    const { id } = await opened(client);
    expect((await veth.ask(7777, 5)).answered).toBe(5);
    const { status, type, lines } = await fetched(LOOPBACK);
    expect({ status, type }).toEqual({ status: 200, type: "text/plain; version=0.0.4" });
    for (const line of [
      "bifurcated_connections 1",
      'bifurcated_leases{device="card0",state="granted"} 1',
      'bifurcated_requests_total{outcome="granted"} 1',
      'bifurcated_requests_total{outcome="denied"} 0',
      'bifurcated_ended_total{cause="return"} 0',
      `bifurcated_transmitted_total{lease="${id}",outcome="allowed"} 5`,
      `bifurcated_transmitted_total{lease="${id}",outcome="denied"} 0`,
    ]) {
      expect(lines).toContain(line);
    }
    const pool = lines!.find((line) => line.startsWith('bifurcated_pool_bytes{device="card0"'))!;
    expect(Number(pool.split(" ").at(-1))).toBeGreaterThanOrEqual(REQUEST.frames * REQUEST.frameSize);
    await client.end("SIGINT");
    await place.logged((entry) => entry.event === "end" && entry["lease"] === id);
    const after = (await fetched(LOOPBACK)).lines!;
    expect(after).toContain('bifurcated_ended_total{cause="return"} 1');
    expect(after.filter((line) => /^bifurcated_(leases|pool_bytes|transmitted_total)\{/.test(line))).toEqual(
      [],
    );
    expect(await fetched(LOOPBACK, "/")).toMatchObject({ status: 404 });
    expect(await fetched(LOOPBACK, "/metrics", "POST")).toMatchObject({ status: 404 });
    expect(await broker.end()).toBe(0);
    expect(await fetched(LOOPBACK)).toEqual({ code: "ECONNREFUSED" });
  });

  it("are fetched from a socket, which goes with the broker", async () => {
    const socketPath = place.path("metrics.sock");
    const broker = await place.startWith("--metrics", socketPath);
    await expect.poll(listening, { timeout: 50_000 }).toEqual({ tcp: [], paths: [place.socket, socketPath] });
    const { status, lines } = await fetched({ socketPath });
    expect(status).toBe(200);
    expect(lines).toContain("bifurcated_connections 0");
    expect(await broker.end()).toBe(0);
    expect(existsSync(socketPath)).toBe(false);
  });

  it("take no file's place: the broker does not begin, and the file stays", async () => {
    place.file("precious", "kept");
    const broker = place.run(
      [process.execPath, ...place.daemon(), "--metrics", place.path("precious")],
      "the broker",
    );
    expect(await broker.ended).not.toBe(0);
    expect(broker.stderr).toMatch(/serve metrics at .*\/precious: something is there that is no socket/);
    expect(readFileSync(place.path("precious"), "utf8")).toBe("kept");
    expect(existsSync(place.socket)).toBe(false);
  });

  it("that cannot be served are in the audit log, and leases are served all the same", async () => {
    await place.startWith("--metrics", place.path("none/metrics.sock"));
    await place.logged(({ event, outcome }) => event === "metrics" && outcome === "failed");
    await opened(echo());
  });
});
