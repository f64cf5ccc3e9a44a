// Every open port of the process, and what a signal that ends the process does to them first.

/** What can be closed. */
interface Closable {
  close(): Promise<void>;
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const ports = new Set<Closable>();
let enabled = true;
let ending = false;

/**
 * Closes all open ports, then ends the process as the signal would have. When somebody else listens to the same
 * signal too, ending the process is left to them.
 */
async function end(signal: NodeJS.Signals): Promise<void> {
  if (ending) return;
  ending = true;
  const others = process.listeners(signal).some((listener) => listener !== end);
  const results = await Promise.allSettled([...ports].map((port) => port.close()));
  ending = false;
  for (const result of results) {
    if (result.status === "rejected") process.stderr.write(`bifurcate: ${String(result.reason)}\n`);
  }
  if (others) return;
  unlisten();
  process.kill(process.pid, signal);
}

function listen(): void {
  for (const signal of SIGNALS) process.on(signal, end);
}

function unlisten(): void {
  for (const signal of SIGNALS) process.off(signal, end);
}

/** The open ports. */
export const openPorts = {
  add(port: Closable): void {
    if (ports.size === 0 && enabled) listen();
    ports.add(port);
  },
  delete(port: Closable): void {
    ports.delete(port);
    if (ports.size === 0) unlisten();
  },
};

/**
 * Whether SIGINT, SIGTERM and SIGHUP close every open port before the process ends; they do unless told otherwise.
 * A program that says false closes its ports itself; what it leaves behind, the guardian undoes.
 */
export function closeOnSignals(on: boolean): void {
  enabled = on;
  unlisten();
  if (on && ports.size > 0) listen();
}
