// The half of `bifurcate foreign` that runs in namespaces of its own: leases, brings the port up, serves the map, runs the
// program, and gives everything back. A program of its own: its argument is the request as JSON.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { BifurcateError, wrapError } from "@bifurcate/control/errors";
import { brokerKernel } from "@bifurcate/control/broker/machine";
import { BrokerConnection } from "@bifurcate/control/protocol/client";
import { jsonLine, renderError } from "../cli/io.js";
import { LeaseHold } from "../lease/hold.js";
import { DevicePlugin } from "./device-plugin.js";
import { statusOf, type ForeignRequest, type InsideRequest } from "./namespaces.js";

/** How long a program has to end by itself when its lease was taken back, ms. */
const PATIENCE_MS = 5_000;

/** Names that the program is told. */
interface Names {
  readonly interface: string;
  readonly socket: string;
  readonly map: string;
}

/** Replaces {interface}, {socket} and {map}. */
function tell(word: string, names: Names): string {
  return word.replace(/\{(interface|socket|map)\}/g, (_, name: keyof Names) => names[name]);
}

/** The port goes up: who is inside has the right to that. */
function bringUp(name: string): void {
  const netns = brokerKernel().openNetns(null);
  try {
    const link = netns.links().find((each) => each.name === name);
    if (link === undefined) throw new Error(`${name} is not in this namespace`);
    netns.setLink(link.index, { up: true });
  } finally {
    netns.close();
  }
}

/** Runs the program until it ends, with one more open descriptor: 3. */
async function run(
  command: readonly string[],
  third: number,
  folder: string,
  started: (child: ChildProcess) => void,
): Promise<number> {
  // It goes with this process, which has the lease.
  const stdio = ["inherit", "inherit", "inherit", third] as const;
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", ...command], {
    stdio: [...stdio],
    // It takes itself for root, and may write nothing of root's: DPDK's files go here (systemd.exec(5)).
    env: { RUNTIME_DIRECTORY: folder, ...process.env },
  });
  started(child);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status, signal) => resolve(statusOf(status, signal)));
  });
}

async function lease(request: ForeignRequest): Promise<number> {
  const { device, flows, transmit, command, json } = request;
  const broker = await BrokerConnection.connect(undefined, "foreign");
  const asked = { device, flows, transmit, mechanism: "foreign", pass: false, queues: 1 } as const;
  // The program makes its own: the least that a request may say.
  const pool = { frames: 64, frameSize: 2048, ringSize: 64, pages: "ordinary" } as const;
  const granted = await broker
    .leaseForeign({ ...asked, ...pool, zeroCopy: "off", busyPoll: false })
    .catch((thrown: unknown) => {
      broker.close();
      throw thrown;
    });
  const { id, port, notes } = granted.lease;
  const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-foreign-"));
  const names = {
    interface: port,
    socket: path.join(folder, "afxdp.sock"),
    map: "/proc/self/fd/3",
  };
  let child: ChildProcess | undefined;
  let lost: string | undefined;
  const end = (): void => void child?.kill("SIGTERM");
  const hold = new LeaseHold(broker, id, (why) => {
    lost = why;
    end();
    setTimeout(() => child?.kill("SIGKILL"), PATIENCE_MS).unref();
  });
  // A terminal has told the program as well.
  process.on("SIGINT", () => undefined);
  for (const signal of ["SIGTERM", "SIGHUP"] as const) process.on(signal, end);
  let plugin: DevicePlugin | undefined;
  try {
    bringUp(port);
    plugin = new DevicePlugin(names.socket, port, granted.map);
    const event = { event: "lease", id, device, flows, ...names, transmit, notes, pid: process.pid };
    const words = `${id}: ${flows.join(" | ")} of ${device} comes to ${port}\n`;
    process.stderr.write(json ? jsonLine(event) : words);
    const status = await run(
      command.map((word) => tell(word, names)),
      granted.name.number,
      folder,
      (started) => (child = started),
    );
    if (lost === undefined) return status;
    throw new BifurcateError("E_LEASE_REVOKED", { what: `use the lease ${id} of ${device}`, why: lost });
  } finally {
    plugin?.close();
    await hold.return();
    hold.close();
    granted.map.close();
    granted.name.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

const request = JSON.parse(process.argv[2] ?? "{}") as InsideRequest;
// Killed before this process was set to end with it: nobody would ever end this one.
if (process.ppid !== request.outside) process.exit(statusOf(null, "SIGTERM"));
try {
  process.exit(await lease(request));
} catch (thrown) {
  const error = wrapError(
    thrown,
    `lease a flow of ${request.device} for ${request.command[0] ?? "a program"}`,
  );
  process.stderr.write(renderError(error, request.json));
  process.exit(error.status);
}
