// A VM served by a split flow of the host's card: the guest's own virtio-net driver at our device end, with ping, HTTP
// and iperf3 through it, in both layouts of rings and with several queue pairs.

import { createHash } from "node:crypto";
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { spawnIn } from "@bifurcate/lab";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { bootMachine } from "@bifurcate/lab/guest/session";
import { BOOT_LIMIT, completeMachine, endSharedGuest } from "@bifurcate/lab/guest/shared";
import { endAll, RunningSplit, startHere } from "@bifurcate/lab/harness";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { countAnswers } from "../testing/echo-requests.js";
import { shell } from "../testing/guest-split.js";
import { recipe } from "../testing/recipe.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();

/** Addresses of the far network: the host's peer, which serves, and the VM. */
const [PEER, VM] = ["10.91.0.2", "10.91.0.3"] as const;
/** Bytes of the body that HTTP brings. */
const BODY = 2_000_000;
const body = Buffer.from(Array.from({ length: BODY }, (_, at) => (at * 31 + (at >> 8)) & 0xff));

const ROWS = [
  { name: "nic0", packed: false, queues: 1 },
  { name: "nic1", packed: true, queues: 1 },
  { name: "nic2", packed: false, queues: 2 },
  { name: "nic3", packed: true, queues: 2 },
] as const;

/** One NIC of the guest, the split card that serves it, and the network behind that. */
interface Served {
  readonly veth: VethPair;
  readonly forward: RunningSplit;
}

/** What docs/vhost-user.md has typed in the VM: its address and link, and at last a ping. */
function vmCommands(card: string): readonly string[] {
  const { vm } = recipe({ card, address: VM, peer: PEER });
  expect(vm.map((line) => line.split(" ")[0])).toEqual(["ip", "ip", "ping"]);
  return vm;
}

describe.skipIf(reason !== null)(
  `a guest's virtio-net at our device end${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let guest: Guest;
    let folder: string;
    const served = new Map<string, Served>();
    const servers: ChildProcess[] = [];

    async function serve(netns: string, command: string, args: string[], ready: RegExp): Promise<void> {
      const child = spawnIn(netns, command, args, { stdio: ["ignore", "pipe", "inherit"] });
      servers.push(child);
      await new Promise<void>((resolve, reject) => {
        let said = "";
        child.stdout!.on("data", (chunk) => ready.test((said += String(chunk))) && resolve());
        child.once("exit", (code) => reject(new Error(`${command} ended with ${code}: ${said}`)));
      });
    }

    const HTTP = `
      const body = Buffer.from(Array.from({ length: ${BODY} }, (_, at) => (at * 31 + (at >> 8)) & 0xff));
      require("node:http").createServer((_, response) => response.end(body)).listen(8000, () => console.log("ready"));`;

    beforeAll(async () => {
      await endSharedGuest();
      folder = mkdtempSync(path.join(tmpdir(), "bifurcate-vm-"));
      const machine = completeMachine({ kernel: "lab", iommu: "none", memory: 1024 });
      const nics = [];
      for (const [number, { name, packed, queues }] of ROWS.entries()) {
        const veth = new VethPair(queues);
        const socket = path.join(folder, `${name}.sock`);
        const mac = `52:54:00:bf:00:0${number}`;
        const flow = `ether dst ${mac} or arp dst host ${VM}`;
        const words = [veth.card, `vhost-user:${socket},server,queues=${queues}`, "--flow", flow];
        const state = { BIFURCATE_STATE_DIR: path.join(folder, name) };
        const forward = new RunningSplit(startHere([...words, "--netns", veth.netns], state, "forward"));
        served.set(name, { veth, forward });
        await forward.event("forward");
        await serve(veth.peerNetns, process.execPath, ["-e", HTTP], /ready/);
        await serve(veth.peerNetns, "iperf3", ["-s", "--forceflush"], /listening/);
        nics.push({ model: "virtio" as const, queues, packed, vhostUser: socket });
      }
      guest = await bootMachine({ ...machine, nics }, (text) => console.log(`guest: ${text}`));
      for (const { name } of ROWS) {
        // Each NIC in a namespace of its own: all have the same network behind them.
        await shell(
          guest,
          `ip netns add ${name} && ip link set ${name} netns ${name} && ip -n ${name} link set lo up`,
        );
        for (const line of vmCommands(name).slice(0, -1)) await shell(guest, `ip netns exec ${name} ${line}`);
      }
    }, BOOT_LIMIT);

    afterAll(async () => {
      await guest?.close();
      for (const child of servers) child.kill("SIGKILL");
      await endAll();
      for (const { veth } of served.values()) veth.remove();
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    });

    it.each(ROWS)("$name: packed $packed, $queues queue pair(s)", async ({ name, packed, queues }) => {
      const { veth, forward } = served.get(name)!;
      const inside = `ip netns exec ${name}`;
      const features = await shell(guest, `${inside} cat /sys/class/net/${name}/device/features`);
      // VIRTIO_F_RING_PACKED is bit 34 (VIRTIO 1.2, section 6), VIRTIO_NET_F_MQ bit 22 (section 5.1.3).
      expect([features[34], features[22]]).toEqual([packed ? "1" : "0", queues > 1 ? "1" : "0"]);
      // It would go on for ever.
      await shell(guest, `${inside} ${vmCommands(name).at(-1)!.replace("ping", "ping -c 1 -w 60")}`);
      expect(Number(await shell(guest, countAnswers(PEER, name, { count: 20, size: 1400 })))).toBe(20);
      const sum = await shell(guest, `${inside} curl -sS --max-time 120 http://${PEER}:8000/ | sha256sum`);
      expect(sum.split(" ")[0]).toBe(createHash("sha256").update(body).digest("hex"));
      for (const direction of ["", "-R"]) {
        const streams = queues > 1 ? "-P 4" : "";
        // Again where a server has still to put the test before away and says that it is busy, or the machine stood still.
        const carried = async (): Promise<void> => {
          const json = await shell(guest, `${inside} iperf3 -c ${PEER} -t 2 ${streams} ${direction} --json`);
          const { end, error } = JSON.parse(json) as Iperf;
          expect(error).toBeUndefined();
          expect(end.sum_received.bytes).toBeGreaterThan(BODY / 10);
        };
        await vi.waitFor(carried, { timeout: 120_000, interval: 500 });
      }
      // A queue of the guest's for each of its processors (virtio-net sets XPS so): one that sends on each.
      for (let cpu = 0; cpu < queues; cpu += 1) {
        await shell(guest, `${inside} taskset -c ${cpu} ping -c 2 -w 60 ${PEER}`);
      }
      const { status } = await forward.end();
      expect(status).toBe(0);
      const { ports } = forward.events.at(-1) as unknown as { ports: { stats: Stats }[] };
      const [card, device] = ports.map(({ stats }) => stats) as [Stats, Stats];
      expect(device.invalidDescriptor).toBe(0);
      // What the guest sent went to the card, or found its ring full. The ring by which the card receives never is: it has
      // room for every frame that is lent to it.
      expect(device.received).toBe(card.sent + card.ringFull);
      expect(device.queues.map((queue) => queue.received > 0)).toEqual(Array(queues).fill(true));
      expect(veth.settings()).toContain(veth.card);
      const layout = packed ? "packed" : "split ";
      console.log(
        `INTEROP | device | guest's virtio-net of QEMU | ${layout} | ping, HTTP, iperf3 | ${queues} queue(s) | ok |`,
      );
    });
  },
);

/** What is read of iperf3's report. */
interface Iperf {
  readonly error?: string;
  readonly end: { readonly sum_received: { readonly bytes: number } };
}

interface Stats {
  readonly received: number;
  readonly sent: number;
  readonly ringFull: number;
  readonly invalidDescriptor: number;
  readonly queues: readonly { readonly received: number }[];
}
