// DPDK, unmodified and without any right, on a lease of its own: both ways that its driver for AF_XDP sockets has to ask for
// a map.

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmdirSync } from "node:fs";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { provideDpdk, testpmd } from "@bifurcate/lab/peers/dpdk";
import {
  BrokerPlace,
  NOBODY,
  opened,
  OTHER,
  powerless,
  REQUEST,
  whatIsLeft,
  type Running,
} from "../testing/broker.js";
import { ECHO } from "../testing/echo.js";
import { addPages, providePages, reservedPages } from "../testing/huge-pages.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const FLOW = "udp dst port 7777";
const POLICY = `
[outsiders]
user = ${NOBODY}
device = card0
flow = ${FLOW}
mechanism = foreign, port
transmit = own
`;
/**
 * DPDK's memory pool is its UMEM, which has to fit the 8 MiB that a user may lock, and its driver wants more than 2,048
 * of it: 2,368 bytes each where the pool stands in huge pages, a page of 4 KiB each where it does not.
 */
const MBUFS = 3000;
/** Huge pages of 2 MiB that testpmd takes. */
const PAGES = 24;

describe.skipIf(reason !== null)(`foreign${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  /** DPDK where other users may read it, which the cache is not, and nobody may write, or it loads no driver from there. */
  let dpdk: string;
  /** Huge pages, to the kernel's reserve. */
  let added = 0;
  let veth: VethPair;
  let place: BrokerPlace;
  let broker: Running;

  beforeAll(async () => {
    const cached = await provideDpdk(() => undefined);
    dpdk = mkdtempSync("/run/bifurcate-dpdk-");
    execFileSync("mount", ["--bind", cached, dpdk]);
    execFileSync("chmod", ["755", dpdk]);
    const before = reservedPages();
    const provided = await providePages(() => before + PAGES - reservedPages());
    added = reservedPages() - before;
    if (!provided) throw new Error(`the kernel has no memory for ${PAGES} huge pages of 2 MiB`);
  }, 600_000);
  afterAll(() => {
    addPages(-added);
    execFileSync("umount", [dpdk]);
    rmdirSync(dpdk);
  });
  beforeEach(async () => {
    veth = new VethPair();
    // DPDK's driver knows nothing of a checksum that a virtual sender leaves to the card: it would send it back undone.
    execFileSync("ip", ["netns", "exec", veth.peerNetns, "ethtool", "-K", veth.peer, "tx", "off"]);
    place = new BrokerPlace(veth.netns);
    place.write(POLICY);
    broker = await place.start();
  });
  afterEach(async () => {
    await place.remove();
    veth.remove();
  });

  /** testpmd behind `bifurcate foreign`, by that option of its driver, forwarding in that way. */
  function outsider(ask: string, forward: string, ...more: string[]): Running {
    const eal = [
      "--in-memory",
      "-m",
      "16",
      "--no-pci",
      "--iova-mode=va",
      "--no-telemetry",
      "--lcores",
      "0@0,1@1",
    ];
    const vdev = `net_af_xdp0,iface={interface},${ask}`;
    const own = [`--total-num-mbufs=${MBUFS}`, `--forward-mode=${forward}`, "--port-topology=loop"];
    const program = [...testpmd(dpdk), ...eal, "--vdev", vdev, "--", ...own, "--stats-period=1"];
    const limited = ["prlimit", `--memlock=${8 << 20}:${8 << 20}`, ...powerless()];
    const command = ["foreign", "card0", "--flow", FLOW, "--json", ...more, "--", ...program];
    return place.run([...limited, process.execPath, ...place.cli(...command)], "testpmd");
  }

  /** When it forwards: the lease's id, and testpmd's process. */
  async function forwards(running: Running): Promise<{ readonly id: string; readonly pid: number }> {
    await running.line("Port statistics");
    // The other stream may be behind.
    const lines = (): string[] => running.stderr.split("\n").slice(0, -1);
    const told = await running.until(() => lines().find((line) => line.startsWith('{"event":"lease"')));
    const { id, pid } = JSON.parse(told) as { id: string; pid: number };
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    return { id, pid: Number(children[0]) };
  }

  const asked: [string, string][] = [
    ["use_cni", "use_cni=1,dp_path={socket}"],
    ["use_pinned_map", "use_pinned_map=1,dp_path={map}"],
  ];
  it.each(asked)("testpmd answers a leased flow with %s, and the kernel everything else", async (_, ask) => {
    const before = whatIsLeft(place);
    const settings = veth.settings();
    await veth.serve(7000);
    await veth.serve(7777);
    const running = outsider(ask, "5tswap");
    const { id, pid } = await forwards(running);
    // Outside of its namespaces it is nobody, and may lock no more than anybody.
    expect(readFileSync(`/proc/${pid}/status`, "utf8")).toMatch(new RegExp(`^Uid:\\s+${NOBODY}\\s`, "m"));
    expect(await place.leases()).toMatchObject([
      { id, state: "granted", mechanism: "foreign", transmit: "own", uid: NOBODY },
    ]);
    const asks = (port: number): Promise<number> => veth.ask(port, 20).then(({ answered }) => answered);
    expect(await asks(7777)).toBe(20);
    // Those were testpmd's answers: it has counted them.
    const counted = (): number =>
      Math.max(0, ...running.lines.map((line) => Number(/RX-packets: (\d+)/.exec(line)?.[1] ?? 0)));
    await running.until(() => (counted() >= 20 ? true : undefined));
    expect(await asks(7000)).toBe(20);
    expect((await veth.askTcp(7000, 5)).answered).toBe(5);
    // Its socket leaves the map by itself: the kernel has the flow, whatever else is left of the lease.
    process.kill(pid, "SIGKILL");
    await expect.poll(() => existsSync(`/proc/${pid}`), { timeout: 50_000 }).toBe(false);
    expect(await asks(7777)).toBe(20);
    expect(await running.ended).toBe(128 + 9);
    await place.settled(() => place.leases().then((all) => all.length === 0));
    await expect.poll(() => whatIsLeft(place), { timeout: 50_000 }).toEqual(before);
    await expect.poll(() => veth.settings(), { timeout: 50_000 }).toBe(settings);
    expect(await place.logged(({ event }) => event === "lease")).toMatchObject({
      outcome: "done",
      uid: NOBODY,
      mechanism: "foreign",
    });
  });

  it("testpmd sends nothing but answers", async () => {
    // As they came: the sender's own address as the source, which is not the card's.
    const running = outsider("use_cni=1,dp_path={socket}", "io");
    await forwards(running);
    expect(await veth.tell(7777, 2)).toBe(0);
    const sent = (): number =>
      Math.max(0, ...running.lines.map((line) => Number(/TX-packets: (\d+)/.exec(line)?.[1] ?? 0)));
    await running.until(() => (sent() >= 2 ? true : undefined));
  });

  it("goes on over the broker's death, and ends with a clear error when it is taken back", async () => {
    await veth.serve(7777);
    const running = outsider("use_cni=1,dp_path={socket}", "5tswap");
    const { id } = await forwards(running);
    await broker.end("SIGKILL");
    expect((await veth.ask(7777, 5)).answered).toBe(5);
    broker = await place.start();
    expect(broker.stderr).toContain("adopted 1 leases, ended 0");
    expect((await veth.ask(7777, 5)).answered).toBe(5);
    // Back with its client, which looks for a broker each second.
    await place.settled(() => place.leases().then(([lease]) => lease?.state === "granted"));
    const release = place.run([process.execPath, ...place.cli("release", id)], "release");
    expect(await release.ended).toBe(0);
    expect((await veth.ask(7777, 5)).answered).toBe(5);
    expect(await running.ended).toBe(1);
    expect(running.stderr).toContain("E_LEASE_REVOKED");
  });

  it("says so where the machine lets nobody make user namespaces", async () => {
    const script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"';
    const forbidden = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"];
    const command = place.cli("foreign", "card0", "--flow", FLOW, "--", "true");
    const running = place.run([...forbidden, process.execPath, ...command], "foreign");
    expect(await running.ended).toBe(1);
    expect(running.stderr).toMatch(/make a user and a network namespace: .*code: E_SYSTEM/s);
    expect(place.log().filter(({ event }) => event === "lease")).toEqual([]);
  });

  it("changes neither the port's program nor the check, of which it has no descriptor", async () => {
    const script = 'ip -force link set dev "$1" xdp off 2>&1; echo "xdp off: $?"; exec sleep 1000';
    const words = ["sh", "-c", script, "sh", "{interface}"];
    const running = place.client(["foreign", "card0", "--flow", FLOW, "--json", "--", ...words]);
    // Of a program that is attached by a link only who has the link disposes (dev_xdp_attach, net/core/dev.c).
    expect(await running.line("xdp off: ")).not.toBe("xdp off: 0");
    expect(running.lines.join("\n")).toMatch(/busy|Can't replace active BPF XDP link/i);
    const told = await running.until(() =>
      running.stderr.split("\n").find((line) => line.startsWith('{"event":"lease"')),
    );
    const { pid } = JSON.parse(told) as { pid: number };
    const fds = `/proc/${pid}/fd`;
    const has = readdirSync(fds).map((fd) => readlinkSync(`${fds}/${fd}`));
    expect(has.filter((each) => each.startsWith("anon_inode:bpf"))).toEqual(["anon_inode:bpf-map"]);
    await running.end("SIGTERM");
  });

  it("is refused to who asks from a namespace that is not his own, and where the policy does not name it", async () => {
    const client = new URL("../../../control/dist/protocol/client.js", import.meta.url).pathname;
    place.file(
      "ask.mjs",
      `import { BrokerConnection } from ${JSON.stringify(client)};
       const broker = await BrokerConnection.connect();
       const lease = { ...${JSON.stringify(REQUEST)}, pass: false, flows: [${JSON.stringify(FLOW)}], ...JSON.parse(process.argv[2]) };
       const said = await broker.leaseForeign(lease).then(() => "granted", (error) => error.code + ": " + error.why);
       console.log(said);
       broker.close();`,
    );
    const ask = async (netns: string, change: object = {}, uid = NOBODY): Promise<string> => {
      const script = [process.execPath, place.path("ask.mjs"), JSON.stringify(change)];
      const running = place.run([...powerless(uid), ...script], "the client", netns);
      return running.line(":");
    };
    expect(await ask(veth.netns)).toBe(
      "E_LEASE_UNSUPPORTED: the client asks from the card's own network namespace",
    );
    expect(await ask(veth.peerNetns)).toBe(
      `E_LEASE_UNSUPPORTED: the client's network namespace belongs to user 0, and it is user ${NOBODY}`,
    );
    expect(await ask(veth.peerNetns, { pass: true })).toMatch(/^E_LEASE_DENIED/);
    expect(await ask(veth.peerNetns, {}, 65_533)).toMatch(/^E_LEASE_DENIED/);
    place.write(POLICY.replace("foreign, port", "port"));
    await place.reload();
    expect(await ask(veth.peerNetns)).toMatch(/^E_LEASE_DENIED: .*the mechanism is port, not foreign/);
  });

  it("the audit log tells of it all: two users on one card, DPDK's and ours, and deaths of client and broker", async () => {
    place.file("echo.mjs", ECHO);
    place.write(
      `${POLICY}\n[echo]\nuser = ${OTHER}\ndevice = card0\nflow = udp dst port 7778\ntransmit = own\n`,
    );
    await place.reload();
    const theirs = outsider("use_cni=1,dp_path={socket}", "5tswap");
    const { id: foreign } = await forwards(theirs);
    const run = `run=${place.path("echo.mjs")}`;
    const ours = place.client(
      ["split", "card0", "--flow", "udp dst port 7778", "--do", run, "--json"],
      OTHER,
    );
    const { id: own, pid } = await opened(ours);
    expect((await veth.ask(7777, 5)).answered).toBe(5);
    expect((await veth.ask(7778, 5)).answered).toBe(5);
    await broker.end("SIGKILL");
    broker = await place.start();
    process.kill(pid, "SIGKILL");
    await place.logged(({ event, lease }) => event === "end" && lease === own);
    expect((await veth.ask(7777, 5)).answered).toBe(5);
    await theirs.end("SIGTERM");
    await place.logged(({ event, lease }) => event === "end" && lease === foreign);
    const log = place.log().map(({ event, outcome, uid, lease }) => [event, outcome, uid, lease]);
    expect(log).toEqual([
      ["start", "done", undefined, undefined],
      ["reload", "done", undefined, undefined],
      ["lease", "done", NOBODY, foreign],
      ["lease", "done", OTHER, own],
      // In the order of their records.
      ...[foreign, own].sort().map((each) => ["adopt", "done", each === own ? OTHER : NOBODY, each]),
      ["start", "done", undefined, undefined],
      ["end", "done", OTHER, own],
      ["end", "done", NOBODY, foreign],
    ]);
  });
});
