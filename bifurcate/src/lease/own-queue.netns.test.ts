// Leases with a queue of the card that is their own: real traffic on it, no right in the client, nothing left at the end.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  BrokerPlace,
  HANDLER,
  NOBODY,
  opened,
  OTHER,
  powerless,
  whatIsLeft,
  type Running,
} from "../testing/broker.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
/** What root has set aside: queue 1 for one user, queue 2 for another. */
const POLICY = `
[one]
user = ${NOBODY}
device = card0
flow = udp dst port 7777
own-queues = 1
transmit = raw
pass = yes

[two]
user = ${OTHER}
device = card0
flow = udp dst port 7778
mechanism = queue
own-queues = 2
transmit = raw

[quiet]
user = ${OTHER}
device = card0
flow = udp dst port 7779
own-queues = 2
`;

const API = fileURLToPath(new URL("../../dist/index.js", import.meta.url));
/** A client with sixteen MiB of frames, twice what it may lock itself; all that it has of them is a descriptor. */
const BIG = `
  import { split } from ${JSON.stringify(API)};
  const flows = ["udp dst port 7777"];
  const port = await split("card0", { flows, frames: 8192, transmit: "raw", via: "broker" });
  console.log(JSON.stringify({ event: "split", id: port.id, pid: process.pid, path: port.path }));
  process.on("SIGINT", () => void port.close());
  await port.run({ file: process.argv[2] });
`;

describe.skipIf(reason !== null)(`an own queue${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let place: BrokerPlace;
  let broker: Running;

  beforeEach(async () => {
    veth = new VethPair(4);
    place = new BrokerPlace(veth.netns);
    place.write(POLICY);
    place.file("handler.mjs", HANDLER);
    broker = await place.start();
  });
  afterEach(async () => {
    await place.remove();
    veth.remove();
  });

  /** Has the wire bring everything on that queue of the card, as a switch or a rule set up by root would. */
  function arriveOn(queue: number): void {
    // What any processor of the peer sends, it sends on that queue (scaling.rst, XPS), whose peer is the card's.
    const everyProcessor = ((1n << BigInt(cpus().length)) - 1n).toString(16);
    const script = [0, 1, 2, 3]
      .map((each) => [each, each === queue ? everyProcessor : "0"] as const)
      .map(([each, mask]) => `echo ${mask} > /sys/class/net/peer0/queues/tx-${each}/xps_cpus`)
      .join(" && ");
    execFileSync("ip", ["netns", "exec", veth.peerNetns, "sh", "-c", script]);
  }

  function lease(uid: number, port: number, ...more: string[]): Running {
    const run = `run=${place.path("handler.mjs")}`;
    const flow = `udp dst port ${port}`;
    const args = ["split", veth.card, "--flow", flow, "--do", run, "--json", "--transmit", "raw", ...more];
    return place.client(args, uid);
  }

  const answers = (port: number, text: string, patience = 60_000): Promise<number[]> =>
    veth.answersFrom(port, text, patience);

  const mechanisms = async (): Promise<unknown[]> =>
    (await place.leases()).map((each) => [(each as { mechanism?: string }).mechanism, each.state]);

  it("gives its flow to a client without a capability and little lockable memory, and the rest to the kernel", async () => {
    const before = whatIsLeft(place);
    const settings = veth.settings();
    await veth.serve(7000);
    await veth.serve(7777);
    arriveOn(1);
    place.file("big.mjs", BIG);
    const limited = ["prlimit", `--memlock=${8 << 20}:${8 << 20}`, ...powerless()];
    const script = [process.execPath, place.path("big.mjs"), place.path("handler.mjs")];
    const client = place.run([...limited, ...script], "the client");
    const { pid } = await opened(client);
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      expect(status).toMatch(new RegExp(`^${set}:\\s+0000000000000000$`, "m"));
    }
    expect(readFileSync(`/proc/${pid}/limits`, "utf8")).toMatch(/^Max locked memory\s+8388608\s+8388608/m);
    expect(await mechanisms()).toEqual([["queue", "granted"]]);
    const told = JSON.parse(await client.line('"event":"split"')) as { path: { queues: number[] } };
    expect(told.path.queues).toEqual([1]);
    // No port was made for it.
    expect(whatIsLeft(place).interfaces.filter((name) => name.startsWith("bff"))).toEqual([]);
    // "s": sent from another port, as no kernel's server would.
    expect(await answers(7777, "s")).toEqual([9]);
    expect((await veth.ask(7777, 20)).answered).toBe(20);
    // Not of the flow, on the same queue: the kernel's.
    expect((await veth.ask(7000, 5)).answered).toBe(5);
    expect((await veth.askTcp(7000, 5)).answered).toBe(5);
    // Of the flow, on another queue: the kernel's too, since nothing steers it.
    arriveOn(0);
    expect(await answers(7777, "s")).toEqual([7777]);
    arriveOn(1);
    expect(await answers(7777, "s")).toEqual([9]);
    expect(await client.end("SIGINT")).toBe(0);
    expect(await answers(7777, "s")).toEqual([7777]);
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    await expect.poll(() => veth.settings(), { timeout: 50_000 }).toBe(settings);
  });

  it("is one client's: two users on two queues, each with its own flow, whatever arrives on the other's", async () => {
    await veth.serve(7777);
    await veth.serve(7778);
    const [one, two] = [lease(NOBODY, 7777), lease(OTHER, 7778)];
    await Promise.all([opened(one), opened(two)]);
    expect(await mechanisms()).toEqual([
      ["queue", "granted"],
      ["queue", "granted"],
    ]);
    arriveOn(1);
    expect(await answers(7777, "s")).toEqual([9]);
    expect(await answers(7778, "s")).toEqual([7778]);
    arriveOn(2);
    expect(await answers(7777, "s")).toEqual([7777]);
    expect(await answers(7778, "s")).toEqual([9]);
    await one.end("SIGKILL");
    expect(await answers(7778, "s")).toEqual([9]);
  });

  it("passes into the kernel what the policy lets it", async () => {
    await veth.serve(7777);
    arriveOn(1);
    await opened(lease(NOBODY, 7777, "--pass"));
    expect(await answers(7777, "pass me")).toEqual([7777]);
    expect(await answers(7777, "s")).toEqual([9]);
  });

  it("falls back to a port where 'own' is to be checked, and says why; insisted on, it is an error", async () => {
    const run = `run=${place.path("handler.mjs")}`;
    const asked = ["split", veth.card, "--flow", "udp dst port 7777", "--do", run, "--json"];
    const client = place.client(asked);
    await opened(client);
    expect(await mechanisms()).toEqual([["port", "granted"]]);
    expect(await client.line('"event":"split"')).toContain("so 'own' cannot be checked");
    expect(await answers(7777, "a")).toEqual([7777]);
    expect(await answers(7777, "s", 1500)).toEqual([]);
    const other = ["split", veth.card, "--flow", "udp dst port 7778", "--do", run, "--json"];
    const refused = place.client(other, OTHER);
    expect(await refused.ended).toBe(77);
    expect(refused.stderr).toContain("E_LEASE_UNSUPPORTED");
    expect(refused.stderr).toContain("'own' cannot be checked");
  });

  it("is refused while another lease has it", async () => {
    await opened(lease(OTHER, 7778));
    const quiet = place.client(
      ["split", veth.card, "--flow", "udp dst port 7779", "--json", "--transmit", "none"],
      OTHER,
    );
    await opened(quiet);
    // By a port: nothing insisted on the queue.
    expect((await mechanisms()).sort()).toEqual([
      ["port", "granted"],
      ["queue", "granted"],
    ]);
    expect(await quiet.line('"event":"split"')).toContain("0 are free");
  });

  it("is adopted by the next broker, and drains when it is taken back from a client that lives", async () => {
    await veth.serve(7777);
    arriveOn(1);
    const client = lease(NOBODY, 7777);
    const { id, pid } = await opened(client);
    await broker.end("SIGKILL");
    expect(await answers(7777, "s")).toEqual([9]);
    broker = await place.start();
    expect(broker.stderr).toContain("adopted 1 leases, ended 0");
    expect(await answers(7777, "s")).toEqual([9]);
    process.kill(pid, "SIGSTOP");
    const before = await place.leases();
    expect(before).toMatchObject([{ id, state: "granted" }]);
    const release = place.run([process.execPath, ...place.cli("release", id, "--json")], "release");
    expect(await release.ended).toBe(0);
    const ended = { id, device: "card0", mechanism: "queue", transmit: "raw", state: "draining" };
    expect(JSON.parse(release.lines.join())).toEqual({ released: [ended], errors: [] });
    // The kernel has the flow at once; the queue is free when the last copy of its socket is closed.
    expect(await answers(7777, "s")).toEqual([7777]);
    expect(await place.leases()).toMatchObject([{ id, state: "draining" }]);
    process.kill(pid, "SIGCONT");
    expect(await client.ended).toBe(1);
    expect(client.stderr).toContain("E_LEASE_REVOKED");
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await opened(lease(NOBODY, 7777));
    expect(await answers(7777, "s")).toEqual([9]);
  });

  it("of a client that does not let go of it: the client is ended, where the policy says so", async () => {
    place.write(POLICY.replace("own-queues = 1\n", "own-queues = 1\ndraining = end-process\n"));
    await place.reload();
    const client = lease(NOBODY, 7777);
    const { id, pid } = await opened(client);
    process.kill(pid, "SIGSTOP");
    const release = place.run([process.execPath, ...place.cli("release", id)], "release");
    expect(await release.ended).toBe(0);
    // Stopped, it would keep the queue for ever.
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await client.ended;
    expect(client.child.signalCode ?? client.child.exitCode).toSatisfy(
      (how) => how === "SIGKILL" || how === 137,
    );
    expect(await place.logged(({ event }) => event === "end-process")).toMatchObject({
      outcome: "done",
      pid,
      lease: id,
    });
    await opened(lease(NOBODY, 7777));
  });

  it("of a client that dies with its broker goes back to the kernel by itself, and to the next broker", async () => {
    await veth.serve(7777);
    const before = whatIsLeft(place);
    arriveOn(1);
    const client = lease(NOBODY, 7777);
    await opened(client);
    await broker.end("SIGKILL");
    await client.end("SIGKILL");
    // A closed socket has left the map: no broker is needed for that.
    expect(await answers(7777, "s")).toEqual([7777]);
    broker = await place.start();
    expect(broker.stderr).toContain("adopted 0 leases, ended 1");
    await expect
      .poll(() => whatIsLeft(place), { timeout: 50_000 })
      .toEqual({ ...before, descriptors: expect.any(Number) as number });
  });
});
