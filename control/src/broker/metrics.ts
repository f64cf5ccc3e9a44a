// Metrics for Prometheus, on a local socket or a TCP port; off unless asked for. Numbers only, of nobody's frames.
import { createServer, type Server as HttpServer } from "node:http";
import { lstatSync, rmSync } from "node:fs";
import { BifurcateError, errnoOf, messageOf } from "../errors.js";
import type { Leases } from "./leases.js";
import type { Server } from "./server.js";

/** Where metrics are served: "127.0.0.1:9467", "[::1]:9467", or the path of a local socket. */
export type MetricsPlace = { readonly path: string } | { readonly host: string; readonly port: number };

/** Reads --metrics. @throws E_BAD_OPTION */
export function metricsPlace(text: string): MetricsPlace {
  if (text.startsWith("/")) return { path: text };
  const match = /^(?:\[([0-9a-f:]+)\]|([0-9.]+)):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host !== undefined && port >= 1 && port <= 65_535) return { host, port };
  throw new BifurcateError("E_BAD_OPTION", {
    what: `read --metrics '${text}'`,
    why: "it is neither ADDRESS:PORT nor the path of a socket",
    next: "Write for example --metrics 127.0.0.1:9467.",
  });
}

/** Connects to the socket at a path. */
type Connect = (path: string) => { close(): void };

/**
 * That nothing of anybody's would be lost: what is there may be a socket that nobody listens on any more, as an earlier
 * broker's. What cannot be looked at says so when it is to be listened on.
 * @throws E_BAD_OPTION
 */
export function checkMetricsPlace(place: MetricsPlace, connect: Connect): void {
  if (!("path" in place)) return;
  const { path } = place;
  const refuse = (why: string): never => {
    const next = "Name another path, or remove it yourself.";
    throw new BifurcateError("E_BAD_OPTION", { what: `serve metrics at ${path}`, why, next });
  };
  let found;
  try {
    found = lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return;
  }
  if (found === undefined) return;
  if (!found.isSocket()) refuse("something is there that is no socket, and it would have to be removed");
  try {
    connect(path).close();
  } catch (thrown) {
    // connect(2): nobody listens. EPROTOTYPE: somebody does, by a socket of another type.
    if (["ECONNREFUSED", "ENOENT"].includes(errnoOf(thrown) ?? "")) return;
    if (errnoOf(thrown) !== "EPROTOTYPE") refuse(`who listens there cannot be asked: ${messageOf(thrown)}`);
  }
  refuse("somebody listens there, and would be cut off");
}

/** A label's value (Prometheus's text format 0.0.4). */
function quoted(value: string): string {
  return `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`;
}

/** The metrics of this moment, in Prometheus's text format. */
export function metricsText(
  leases: Pick<Leases, "all" | "counts" | "transmitted">,
  server: Pick<Server, "connections">,
): string {
  const lines: string[] = [];
  const metric = (name: string, type: "counter" | "gauge", help: string): void => {
    lines.push(`# HELP bifurcated_${name} ${help}`, `# TYPE bifurcated_${name} ${type}`);
  };
  const value = (name: string, labels: Readonly<Record<string, string>>, number: number): void => {
    const pairs = Object.entries(labels).map(([key, each]) => `${key}=${quoted(each)}`);
    lines.push(`bifurcated_${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${number}`);
  };
  metric("connections", "gauge", "Clients that are connected.");
  value("connections", {}, server.connections);
  metric("leases", "gauge", "Leases by device and state.");
  const now = new Map<string, { device: string; state: string; count: number; memory: number }>();
  for (const { device, state, memory } of leases.all()) {
    const key = `${device} ${state}`;
    const found = now.get(key) ?? { device, state, count: 0, memory: 0 };
    now.set(key, { ...found, count: found.count + 1, memory: found.memory + memory });
  }
  for (const { device, state, count } of now.values()) value("leases", { device, state }, count);
  metric("pool_bytes", "gauge", "Bytes of the leases' frame pools.");
  for (const { device, state, memory } of now.values()) value("pool_bytes", { device, state }, memory);
  metric("requests_total", "counter", "Requests for a lease, by outcome.");
  for (const outcome of ["granted", "denied"]) {
    value("requests_total", { outcome }, leases.counts.get(outcome) ?? 0);
  }
  metric("ended_total", "counter", "Leases that ended, by cause.");
  for (const cause of ["return", "death", "release", "loss"]) {
    value("ended_total", { cause }, leases.counts.get(cause) ?? 0);
  }
  metric(
    "transmitted_total",
    "counter",
    "Frames of live leases that the check on the port let out or dropped.",
  );
  for (const { id, allowed, denied, limited } of leases.transmitted()) {
    value("transmitted_total", { lease: id, outcome: "allowed" }, allowed);
    value("transmitted_total", { lease: id, outcome: "denied" }, denied);
    value("transmitted_total", { lease: id, outcome: "limited" }, limited);
  }
  return `${lines.join("\n")}\n`;
}

/** Serves GET /metrics. */
export function serveMetrics(
  place: MetricsPlace,
  text: () => string,
  failed: (why: string) => void,
  connect: Connect,
): HttpServer {
  const server = createServer((request, response) => {
    if (request.method !== "GET" || request.url !== "/metrics") {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": "text/plain; version=0.0.4" }).end(text());
  });
  server.maxConnections = 16;
  server.requestTimeout = 5_000;
  server.on("error", (thrown) => failed(messageOf(thrown)));
  try {
    checkMetricsPlace(place, connect);
    if ("path" in place) {
      rmSync(place.path, { force: true });
      server.listen(place.path);
    } else server.listen(place.port, place.host);
  } catch (thrown) {
    failed(messageOf(thrown));
  }
  return server;
}
