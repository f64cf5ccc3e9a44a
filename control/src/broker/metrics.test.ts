// Metrics: where they may be served, and that they are Prometheus's text.
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { request, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { locals } from "./machine.js";
import { checkMetricsPlace, metricsPlace, metricsText, serveMetrics } from "./metrics.js";
import { refusal } from "./testing/lease-place.js";

describe("--metrics", () => {
  it("takes an address with a port, or a path", () => {
    expect(metricsPlace("127.0.0.1:9467")).toEqual({ host: "127.0.0.1", port: 9467 });
    expect(metricsPlace("[::1]:9467")).toEqual({ host: "::1", port: 9467 });
    expect(metricsPlace("/run/bifurcate/metrics")).toEqual({ path: "/run/bifurcate/metrics" });
  });

  it.each(["9467", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "metrics"])("refuses %s", (text) => {
    expect(() => metricsPlace(text)).toThrow("neither ADDRESS:PORT nor");
  });
});

describe("the path of a socket", () => {
  let folder: string;
  let servers: Server[];
  let failures: string[];
  const at = (name: string): string => join(folder, name);
  const { connect } = locals();

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bf-metrics-"));
    servers = [];
    failures = [];
  });
  afterEach(() => {
    for (const server of servers) server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  function serve(name: string): Server {
    const server = serveMetrics(
      { path: at(name) },
      () => `${name}\n`,
      (why) => failures.push(why),
      connect,
    );
    servers.push(server);
    return server;
  }

  it("takes nothing's place but a socket's", () => {
    writeFileSync(at("file"), "kept\n");
    symlinkSync(at("file"), at("link"));
    symlinkSync(at("nowhere"), at("dangling"));
    mkdirSync(at("folder"));
    for (const name of ["file", "link", "dangling", "folder"]) {
      const said = refusal(() => checkMetricsPlace({ path: at(name) }, connect));
      expect(said, name).toMatch(/^E_BAD_OPTION: something is there that is no socket, .* Name another path/);
      failures = [];
      serve(name);
      expect(failures, name).toEqual([expect.stringContaining("no socket")]);
    }
    expect(readFileSync(at("link"), "utf8")).toBe("kept\n");
    expect(refusal(() => checkMetricsPlace({ path: at("nothing") }, connect))).toBe("");
    expect(refusal(() => checkMetricsPlace({ host: "127.0.0.1", port: 9467 }, connect))).toBe("");
    // What cannot be looked at says so when it is to be listened on.
    expect(refusal(() => checkMetricsPlace({ path: at("file/below") }, connect))).toBe("");
  });

  it("takes the place of the socket of a broker that was killed", async () => {
    const listen = `require("net").createServer().listen(${JSON.stringify(at("socket"))}, () => process.kill(process.pid, "SIGKILL"))`;
    const killed = spawn(process.execPath, ["-e", listen], { stdio: "ignore" });
    await once(killed, "exit");
    expect(existsSync(at("socket"))).toBe(true);
    expect(refusal(() => checkMetricsPlace({ path: at("socket") }, connect))).toBe("");
    await once(serve("socket"), "listening");
    const asked = request({ socketPath: at("socket"), path: "/metrics" }).end();
    const [answer] = (await once(asked, "response")) as [NodeJS.ReadableStream];
    answer.resume();
    expect(failures).toEqual([]);
  });

  it("takes the place of nobody who listens, whatever the type of his socket", async () => {
    await once(serve("stream"), "listening");
    const packets = locals().listen(at("packets"));
    for (const name of ["stream", "packets"]) {
      const said = refusal(() => checkMetricsPlace({ path: at(name) }, connect));
      expect(said, name).toMatch(
        /^E_BAD_OPTION: somebody listens there, and would be cut off Name another path/,
      );
      serve(name);
      expect(failures, name).toEqual([expect.stringContaining("somebody listens there")]);
      failures = [];
    }
    packets.close();
  });
});

describe("the text", () => {
  it("has a line for each value, with its labels quoted", () => {
    const lease = {
      id: "lease-00000001",
      state: "granted",
      device: 'e"th\\0',
      flows: [],
      mechanism: "port",
      transmit: "own",
      pass: false,
      uid: 1,
      pid: 1,
      memory: 4096,
      since: "",
    } as const;
    const leases = {
      all: () => [lease, lease],
      counts: new Map([["granted", 2]]),
      transmitted: () => [{ id: lease.id, allowed: 5, denied: 6, limited: 7 }],
    };
    const text = metricsText(leases, { connections: 3 });
    for (const line of [
      "bifurcated_connections 3",
      'bifurcated_leases{device="e\\"th\\\\0",state="granted"} 2',
      'bifurcated_pool_bytes{device="e\\"th\\\\0",state="granted"} 8192',
      'bifurcated_requests_total{outcome="granted"} 2',
      'bifurcated_ended_total{cause="death"} 0',
      'bifurcated_transmitted_total{lease="lease-00000001",outcome="denied"} 6',
      'bifurcated_transmitted_total{lease="lease-00000001",outcome="limited"} 7',
    ]) {
      expect(text.split("\n")).toContain(line);
    }
    expect(text).toMatch(/^(# (HELP|TYPE) [a-z_]+ .+\n|[a-z_]+(\{.*\})? \d+\n)+$/);
  });
});
