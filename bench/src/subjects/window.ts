// The measured window of a split: one second to settle, then packets received and process CPU time; one JSON line.
import { setTimeout as sleep } from "node:timers/promises";
import type { Port } from "bifurcate";

/** Measures what runs on a port for some seconds, ends it, closes the port and prints the line. */
export async function printWindow(port: Port, running: Promise<void>, seconds: number): Promise<void> {
  await sleep(1000);
  const before = port.stats;
  const cpu = process.cpuUsage();
  const began = process.hrtime.bigint();
  await sleep(seconds * 1000);
  const spent = process.cpuUsage(cpu);
  const elapsed = Number(process.hrtime.bigint() - began) / 1e9;
  const after = port.stats;
  await port.stop();
  await running;
  await port.close();
  const packets = after.received - before.received;
  const line = { packets, seconds: elapsed, cpu: (spent.user + spent.system) * 1000 };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
