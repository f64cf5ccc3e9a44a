// Runs inside the guest: gives the NICs their names, then runs commands for the host and streams what they say.

import { spawn, spawnSync, type ChildProcess, type ChildProcessWithoutNullStreams } from "node:child_process";
import {
  createReadStream,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  writeSync,
} from "node:fs";
import { constants } from "node:os";
import { Lines, type FoundPort, type OutputName, type ToGuest, type ToHost } from "./channel.js";

/** The port that the host listens on, e.g. /dev/vport0p1: found by the name that QEMU gave it. */
function controlPort(): string {
  const ports = "/sys/class/virtio-ports";
  const found = readdirSync(ports).find(
    (port) => readFileSync(`${ports}/${port}/name`, "utf8").trim() === "bifurcate.control",
  );
  if (found === undefined) throw new Error("no control port: the host did not boot this guest");
  return `/dev/${found}`;
}

const control = openSync(controlPort(), "r+");

function send(message: ToHost): void {
  const bytes = Buffer.from(`${JSON.stringify(message)}\n`);
  for (let done = 0; done < bytes.length;) done += writeSync(control, bytes, done);
}

/** PCI address of an interface: the last that its device's path names, since a virtio device stands below it. */
function pciOf(interfaceName: string): string {
  const device = realpathSync(`/sys/class/net/${interfaceName}/device`);
  return device.match(/[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/g)?.at(-1) ?? "";
}

/** Names the interfaces that have these MAC addresses. */
function giveNames(wanted: readonly (readonly [string, string])[]): void {
  const addressOf = (name: string): string => `/sys/class/net/${name}/address`;
  // The folder also has files, e.g. bonding_masters.
  const interfaces = readdirSync("/sys/class/net").filter((name) => existsSync(addressOf(name)));
  const byMac = new Map(interfaces.map((name) => [readFileSync(addressOf(name), "utf8").trim(), name]));
  const present = wanted.filter(([mac]) => byMac.has(mac));
  const batch = present.map(([mac, name]) => `link set dev ${byMac.get(mac)!} name ${name}\n`).join("");
  if (batch !== "") spawnSync("ip", ["-batch", "-"], { input: batch, stdio: ["pipe", 2, 2] });
  const ready = present.map(([, name]): FoundPort => ({ name, pci: pciOf(name) }));
  send({ ready, missing: wanted.filter(([mac]) => !byMac.has(mac)).map(([, name]) => name) });
}

const running = new Map<number, ChildProcess>();

function start(
  run: number,
  argv: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string>>,
): void {
  const [command, ...args] = argv as [string, ...string[]];
  const refused = (error: NodeJS.ErrnoException): void => {
    send({ run, stderr: Buffer.from(`${command}: ${error.message}\n`).toString("base64") });
    running.delete(run);
    send({ run, status: error.code === "ENOENT" || error.code === "ENOTDIR" ? 127 : 126 });
  };
  let child: ChildProcessWithoutNullStreams;
  try {
    // A process group of its own: a signal reaches all that the command started.
    child = spawn(command, args, { cwd, env: { ...process.env, ...env }, detached: true });
  } catch (thrown) {
    // An empty name, one that is too long, a file within a file: these are not told by an event.
    refused(thrown as NodeJS.ErrnoException);
    return;
  }
  running.set(run, child);
  child.stdin.on("error", () => undefined);
  for (const name of ["stdout", "stderr"] as const) {
    // The next chunk when the host has taken this one: nobody holds what nobody reads.
    child[name].on("data", (bytes: Buffer) => {
      child[name].pause();
      send({ run, [name]: bytes.toString("base64") } as Record<OutputName, string> & { run: number });
    });
  }
  child.on("error", refused);
  child.on("close", (status, signal) => {
    if (!running.delete(run)) return;
    send({ run, status: status ?? 128 + (signal === null ? 0 : constants.signals[signal]) });
  });
}

function obey(message: ToGuest): void {
  if ("name" in message) return giveNames(message.name);
  if ("argv" in message) return start(message.run, message.argv, message.cwd, message.env);
  const child = running.get(message.run);
  if (child === undefined) return; // it ended while the message was on its way
  if ("stdin" in message) {
    const took = (): void => send({ run: message.run, took: "stdin" });
    child.stdin!.write(Buffer.from(message.stdin, "base64"), took);
  } else if ("took" in message) child[message.took]!.resume();
  else if ("end" in message) child.stdin!.end();
  else {
    try {
      process.kill(-child.pid!, message.signal);
    } catch {
      child.kill(message.signal); // the group's leader has ended and others hold its output
    }
  }
}

const lines = new Lines();
createReadStream("", { fd: control, autoClose: false, highWaterMark: 65536 })
  .on("data", (chunk) => {
    for (const message of lines.take(chunk as Buffer)) obey(message as ToGuest);
  })
  // The host is gone: init switches the guest off when this process ends.
  .on("end", () => process.exit(0))
  .on("error", () => process.exit(1));
