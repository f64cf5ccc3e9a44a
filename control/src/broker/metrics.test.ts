// Metrics: where they may be served, and that they are Prometheus's text.
import { describe, expect, it } from "vitest";
import { metricsPlace, metricsText } from "./metrics.js";

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
