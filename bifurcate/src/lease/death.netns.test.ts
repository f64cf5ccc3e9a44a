// Leases and the death of either side: the kernel has the flow at once, a broker's leases outlive it, nothing is left.

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BrokerPlace, NOBODY, opened, powerless, whatIsLeft, type Running } from "../testing/broker.js";
import { ECHO } from "../testing/echo.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const FLOW = "udp dst port 7777";
const POLICY = `
[echo]
user = ${NOBODY}
device = card0
flow = udp dst portrange 7000-7999
transmit = own
pass = yes
leases = 100
memory = 1G
`;
const API = fileURLToPath(new URL("../../dist/index.js", import.meta.url));
/** A client that leases, starts a child which inherits every descriptor, says who is who, and waits. */
const FORKING = `
  import { spawn } from "node:child_process";
  import { readdirSync } from "node:fs";
  import { split } from ${JSON.stringify(API)};
  const port = await split(process.argv[2], { flows: process.argv[3], via: "broker" });
  const open = readdirSync("/proc/self/fd").map(Number);
  const here = (fd) => readdirSync("/proc/self/fd").includes(String(fd));
  const stdio = Array.from({ length: Math.max(...open) + 1 }, (_, fd) => (fd > 2 && here(fd) ? fd : "ignore"));
  const child = spawn("sleep", ["600"], { stdio, detached: true });
  console.log(JSON.stringify({ id: port.id, pid: process.pid, child: child.pid }));
  setInterval(() => undefined, 1000);
`;

/** A client that leases, closes its lease when it is told to, and lives on. */
const CLOSING = `
  import { split } from ${JSON.stringify(API)};
  const port = await split(process.argv[2], { flows: process.argv[3], via: "broker" });
  process.once("SIGUSR2", () => port.close().then(() => console.log("closed")));
  console.log(JSON.stringify({ id: port.id }));
  setInterval(() => undefined, 1000);
`;

interface Forked {
  readonly id: string;
  readonly pid: number;
  readonly child: number;
}

describe.skipIf(reason !== null)(`death${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let place: BrokerPlace;
  let broker: Running;

  beforeEach(async () => {
    veth = new VethPair();
    place = new BrokerPlace(veth.netns);
    place.write(POLICY);
    place.file("echo.mjs", ECHO);
    place.file("forking.mjs", FORKING);
    place.file("closing.mjs", CLOSING);
    broker = await place.start();
  });
  afterEach(async () => {
    await place.remove();
    veth.remove();
  });

  function echo(flow = FLOW): Running {
    return place.client([
      "split",
      veth.card,
      "--flow",
      flow,
      "--do",
      `run=${place.path("echo.mjs")}`,
      "--json",
    ]);
  }

  it("of the client: the kernel has the flow, and nothing of the lease is left", async () => {
    const before = whatIsLeft(place);
    await veth.serve(7777);
    const client = echo();
    const { id, pid } = await opened(client);
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    process.kill(pid, "SIGKILL");
    const ended = await place.logged((entry) => entry.event === "end" && entry["lease"] === id);
    // A process that is killed closes its files first, and is told of last (do_exit(), kernel/exit.c): what comes first, counts.
    expect([`process ${pid} ended`, "its client closed the connection"]).toContain(ended["why"]);
    // The kernel's own server answers now.
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
  });

  it("of the client while a forked child holds its descriptors: the flow is the kernel's all the same", async () => {
    const before = whatIsLeft(place);
    await veth.serve(7777);
    const client = place.run(
      [...powerless(), process.execPath, place.path("forking.mjs"), veth.card, FLOW],
      "the client",
    );
    const { id, pid, child } = JSON.parse(await client.line("child")) as Forked;
    process.kill(pid, "SIGKILL");
    try {
      await place.logged((entry) => entry.event === "end" && entry["lease"] === id);
      expect((await veth.ask(7777, 3)).answered).toBe(3);
      await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    } finally {
      process.kill(child, "SIGKILL");
    }
  });

  it("of the client while a forked child holds its descriptors, draining by policy: until the last copy closes", async () => {
    place.write(`${POLICY}draining = wait\n`);
    broker.child.kill("SIGHUP");
    await place.logged((entry) => entry.event === "reload");
    const before = whatIsLeft(place);
    const client = place.run(
      [...powerless(), process.execPath, place.path("forking.mjs"), veth.card, FLOW],
      "the client",
    );
    const { id, pid, child } = JSON.parse(await client.line("child")) as Forked;
    process.kill(pid, "SIGKILL");
    await place.logged((entry) => entry.event === "end" && entry["lease"] === id);
    expect(await place.leases()).toMatchObject([{ id, state: "draining" }]);
    process.kill(child, "SIGKILL");
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
  });

  it("of the broker: the flow goes on, and the next broker adopts the lease", async () => {
    const before = whatIsLeft(place);
    const client = echo();
    const { id, pid } = await opened(client);
    await broker.end("SIGKILL");
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    const next = await place.start();
    expect(next.stderr).toContain("adopted 1 leases, ended 0");
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    // The client tells the new broker that it is there, and gives the lease back to it.
    await place.settled(() => place.leases().then(([only]) => only?.id === id && only.pid === pid));
    await client.end("SIGINT");
    await place.logged((entry) => entry.event === "end" && entry["lease"] === id);
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
  });

  it("of the broker, and its client gave the lease back before the next came: that one takes it away", async () => {
    const before = whatIsLeft(place);
    await veth.serve(7777);
    const client = place.run(
      [...powerless(), process.execPath, place.path("closing.mjs"), veth.card, FLOW],
      "the client",
    );
    const { id } = JSON.parse(await client.line("id")) as { id: string };
    await broker.end("SIGKILL");
    client.child.kill("SIGUSR2");
    await client.line("closed");
    broker = await place.start();
    // At once, or when the kernel has let go of the closed sockets, which may be later.
    await expect
      .poll(() => place.log(), { timeout: 50_000 })
      .toContainEqual(expect.objectContaining({ lease: id, why: "nobody has its sockets" }));
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    expect(client.child.exitCode).toBeNull();
  });

  it("of a broker that cannot begin to serve: it ends with an error, and the leases are the next one's", async () => {
    const client = echo();
    await opened(client);
    await broker.end("SIGKILL");
    // As long as no path of a socket may be (unix(7)): it finds out after it has adopted the lease.
    const socket = place.path("s".repeat(120));
    const late = place.run([process.execPath, ...place.daemon(), "--socket", socket], "the broker");
    expect(await late.ended).toBe(1);
    expect(late.stderr).toContain(`listen at ${socket}`);
    expect((await place.start()).stderr).toContain("adopted 1 leases, ended 0");
    expect((await veth.ask(7777, 3)).answered).toBe(3);
  });

  it("of none: a second broker with the first one's state is refused, and leaves everything as it is", async () => {
    const client = echo();
    const { id } = await opened(client);
    const before = whatIsLeft(place);
    const socket = place.path("second.sock");
    const second = [process.execPath, ...place.daemon(), "--socket", socket];
    // Whether it answers or not.
    for (const signal of ["SIGCONT", "SIGSTOP"] as const) {
      process.kill(place.pid, signal);
      const refused = place.run(second, "the second broker");
      expect(await refused.ended).toBe(1);
      expect(refused.stderr).toContain("E_BROKER_RUNNING");
      expect(refused.stderr).toContain(`process ${place.pid}, a broker at ${place.socket}, has it`);
      expect(refused.stderr).toContain(`End process ${place.pid} first`);
    }
    process.kill(place.pid, "SIGCONT");
    expect(readdirSync(place.folder)).not.toContain("second.sock");
    // Nor may one with a state of its own take the socket.
    const beside = [process.execPath, ...place.daemon(), "--state", place.path("beside")];
    const refused = place.run(beside, "the third broker");
    expect(await refused.ended).toBe(1);
    expect(refused.stderr).toContain(`listen at ${place.socket}: a broker answers there`);
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    expect(await place.leases()).toMatchObject([{ id, state: "granted" }]);
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    // Of one that was killed nothing is locked: not by its client either, which has descriptors of it.
    await broker.end("SIGKILL");
    const next = place.run(second, "the next broker");
    await next.until(() => (next.stderr.includes("serves") ? true : undefined));
    expect(next.stderr).toContain("adopted 1 leases, ended 0");
    expect(await next.end()).toBe(0);
    // Nor of one that ended in good order.
    broker = await place.start();
    expect(broker.stderr).toContain("adopted 1 leases, ended 0");
    expect((await veth.ask(7777, 3)).answered).toBe(3);
  });

  it("of an older broker: a newer one adopts its lease, which lacks what came since", async () => {
    await veth.serve(7777);
    const client = echo();
    const { id } = await opened(client);
    await broker.end("SIGKILL");
    // As the first version wrote it: no queues of the card, and no map of their sockets beside that of the ports.
    const path = `${place.state}/leases/${id}.json`;
    const { own, granted, ...record } = JSON.parse(readFileSync(path, "utf8")) as Record<
      string,
      object | null
    >;
    expect(own).toBeNull();
    const older = Object.fromEntries(Object.entries(granted!).filter(([name]) => name !== "portQueues"));
    writeFileSync(path, JSON.stringify({ ...record, granted: older }));
    for (const card of readdirSync(place.bpffs).filter((name) => name.startsWith("card-"))) {
      rmSync(`${place.bpffs}/${card}/sockets`);
    }
    broker = await place.start();
    expect(broker.stderr).toContain("adopted 1 leases, ended 0");
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    // The program is made anew for a second lease, and knows the first.
    const second = echo("udp dst port 7778");
    await opened(second);
    expect((await veth.ask(7778, 3)).answered).toBe(3);
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    await second.end("SIGINT");
    await client.end("SIGINT");
    await place.settled(() => Promise.resolve(whatIsLeft(place).records.length === 0));
  });

  it("of both: the kernel has the flow, and the next broker takes the lease away", async () => {
    const before = whatIsLeft(place);
    await veth.serve(7777);
    execFileSync("ip", ["netns", "exec", veth.peerNetns, "ethtool", "-K", veth.peer, "tx", "off"]);
    const client = echo();
    const { pid } = await opened(client);
    await broker.end("SIGKILL");
    process.kill(pid, "SIGKILL");
    await client.ended;
    // No broker runs: the port itself gives the frames back.
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    const next = await place.start();
    expect(next.stderr).toContain("adopted 0 leases, ended 1");
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
  });

  it("of the broker at any moment of a grant leaves nothing that the next one does not take away", async () => {
    const before = whatIsLeft(place);
    for (let round = 0; round < 8; round++) {
      const clients = [7001, 7002, 7003].map((port) => echo(`udp dst port ${port}`));
      // Node takes some 300 ms to come up; grants of three clients lie somewhere in what follows.
      await new Promise((resolve) => setTimeout(resolve, 250 + 60 * round));
      await broker.end("SIGKILL");
      await Promise.all(clients.map((client) => client.end("SIGKILL")));
      broker = await place.start();
    }
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
  });

  it("of a lease by release: the live client gets an error with a code, and the kernel has the flow", async () => {
    const before = whatIsLeft(place);
    await veth.serve(7777);
    const client = echo();
    const { id } = await opened(client);
    const other = place.run([process.execPath, ...place.cli("release", id)], "release");
    expect(await other.ended).toBe(0);
    expect(other.lines).toEqual([`${id}: its flow is with the kernel`]);
    expect(await client.ended).toBe(1);
    expect(client.stderr).toContain("E_LEASE_REVOKED");
    expect((await veth.ask(7777, 3)).answered).toBe(3);
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    expect(place.log()).toContainEqual(
      expect.objectContaining({ event: "release", lease: id, by: 0, outcome: "done" }),
    );
  });

  it("of the card: the lease ends, and the client is told", async () => {
    const client = echo();
    const { id } = await opened(client);
    execFileSync("ip", ["-n", veth.netns, "link", "del", veth.card]);
    await place.logged((entry) => entry.event === "end" && entry["lease"] === id);
    expect(await client.ended).toBe(1);
    expect(client.stderr).toContain("E_LEASE_REVOKED");
    expect(await place.leases()).toEqual([]);
  });
});
