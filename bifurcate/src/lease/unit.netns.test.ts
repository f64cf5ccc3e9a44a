// The shipped systemd unit, started by a real systemd: the commands of docs/broker.md are run as they stand there.

import { execFileSync, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { NEEDED } from "@bifurcate/control/broker/start";
import { powerless, NOBODY } from "../testing/broker.js";
import { noSystemd, Systemd } from "../testing/systemd.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun() ?? noSystemd();
const DOCS = readFileSync(new URL("../../../docs/broker.md", import.meta.url), "utf8");
/** Numbers of the capabilities (include/uapi/linux/capability.h). */
const NUMBERS = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13, CAP_IPC_LOCK: 14, CAP_BPF: 39 };

/** The five commands. */
function commands(): string[] {
  const [, block] = /## Running in five commands\n.*?```sh\n(.*?)```/s.exec(DOCS)!;
  return block!.trim().split("\n");
}

interface Listed {
  readonly id: string;
  readonly state: string;
  readonly pid: number;
}

describe.skipIf(reason !== null)(`the shipped unit${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let systemd: Systemd;
  let client: ChildProcess;
  let said = "";

  beforeAll(async () => {
    veth = new VethPair();
    // The example of a policy is about eth0.
    const inside = (...words: string[]): unknown => execFileSync("ip", ["-n", veth.netns, ...words]);
    inside("link", "set", "dev", veth.card, "down", "name", "eth0");
    inside("link", "set", "dev", "eth0", "up");
    systemd = new Systemd(veth.netns);
    await systemd.boot();
  }, 300_000);
  afterAll(async () => {
    await systemd.remove();
    veth.remove();
  }, 120_000);

  const property = (name: string): string => systemd.sh(`systemctl show -P ${name} bifurcated`).trim();
  const status = (pid: string | number): string => systemd.sh(`cat /proc/${pid}/status`);
  const leases = (): Listed[] =>
    (JSON.parse(systemd.sh("bifurcate leases --json")) as { leases: Listed[] }).leases;
  const answers = (): string => {
    const dig = ["dig", "+tries=30", "+time=5", "+short", `@${veth.address}`, "www.bifurcate.test"];
    return execFileSync("ip", ["netns", "exec", veth.peerNetns, ...dig], { encoding: "utf8" }).trim();
  };

  it("starts the broker as its own user with exactly its capabilities, by four commands of the docs", () => {
    // The install step before them, as the docs have it.
    const command = "/usr/local/bin/bifurcate";
    expect(DOCS).toContain(`\`sudo ln -s ${systemd.sh(`readlink ${command}`).trim()} ${command}\``);
    const typed = commands();
    expect(typed).toHaveLength(5);
    for (const each of typed.slice(0, 4)) {
      expect(each).toMatch(/^sudo /);
      systemd.sh(each.replace(/^sudo /, ""));
    }
    expect(systemd.sh("systemctl is-enabled bifurcated; systemctl is-active bifurcated")).toBe(
      "enabled\nactive\n",
    );
    const of = status(property("MainPID"));
    const uid = systemd.sh("id -u bifurcate").trim();
    expect(Number(uid)).toBeGreaterThan(0);
    expect(of).toMatch(new RegExp(`^Uid:\\s+${uid}\\s+${uid}\\s+${uid}\\s+${uid}$`, "m"));
    const mask = NEEDED.reduce((sum, name) => sum | (1n << BigInt(NUMBERS[name])), 0n);
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      expect(of).toMatch(new RegExp(`^${set}:\\s+${mask.toString(16).padStart(16, "0")}$`, "m"));
    }
    expect(of).toMatch(/^NoNewPrivs:\s+1$/m);
    expect(of).toMatch(/^Seccomp:\s+2$/m);
  }, 300_000);

  it("leases to a user without any capability, by the fifth command of the docs", async () => {
    client = systemd.spawn([...powerless(NOBODY), "sh", "-c", `exec ${commands()[4]!}`]);
    for (const stream of [client.stdout!, client.stderr!])
      stream.on("data", (text) => (said += String(text)));
    await expect
      .poll(() => leases(), { timeout: 120_000, message: said })
      .toMatchObject([{ state: "granted" }]);
    expect(answers()).toContain("192.0.2.80");
    const of = status(leases()[0]!.pid);
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      expect(of).toMatch(new RegExp(`^${set}:\\s+0+$`, "m"));
    }
  }, 300_000);

  it("keeps the lease over a restart", () => {
    const [before] = leases();
    const pid = property("MainPID");
    systemd.sh("systemctl restart bifurcated");
    expect(property("MainPID")).not.toBe(pid);
    expect(leases()).toEqual([before]);
    expect(answers()).toContain("192.0.2.80");
  }, 300_000);

  it("reads the policy again on a reload, and goes on with the old one where the new one is wrong", async () => {
    const pid = property("MainPID");
    const tight = `sed -i 's/^leases = 4/leases = 1/' /etc/bifurcate/policy`;
    systemd.sh(`${tight} && systemctl reload bifurcated`);
    const second = `setpriv --reuid=nobody --regid=nogroup --clear-groups -- ${commands()[4]!} --via broker 2>&1 || true`;
    await expect.poll(() => systemd.sh(second), { timeout: 120_000 }).toContain("E_LEASE_DENIED");
    systemd.sh("echo rubbish >> /etc/bifurcate/policy");
    expect(systemd.sh("systemctl reload bifurcated 2>&1 || echo refused")).toMatch(/refused$/m);
    expect(systemd.sh(second)).toContain("E_LEASE_DENIED");
    expect([property("MainPID"), property("ActiveState")]).toEqual([pid, "active"]);
    systemd.sh("sed -i /^rubbish/d /etc/bifurcate/policy");
  }, 300_000);

  it("stops cleanly, while the lease goes on, and takes it away when it comes back to a client that has died", async () => {
    const lease = leases()[0]!;
    systemd.sh("systemctl stop bifurcated");
    expect([property("ActiveState"), property("Result")]).toEqual(["inactive", "success"]);
    expect(answers()).toContain("192.0.2.80");
    const ended = new Promise((resolve) => client.once("exit", resolve));
    systemd.sh(`kill -9 ${lease.pid}`);
    await ended;
    systemd.sh("systemctl start bifurcated");
    await expect.poll(() => leases(), { timeout: 120_000 }).toEqual([]);
    systemd.sh("systemctl stop bifurcated");
    expect(systemd.sh("ls /run/bifurcate/leases /run/bifurcate-bpf/names | grep lease- || true")).toBe("");
    expect(systemd.sh("ip -o link | grep -c bfn || true")).toBe("0\n");
  }, 300_000);
});
