// What a split of a veth card says of each frame beyond its bytes: asked of the driver by XDP, or of packet sockets.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { split, type Port, type SplitOptions } from "bifurcate";
import { Netns } from "@bifurcate/addon";
import { findLink, nativeKernel } from "@bifurcate/control";
import { cliPath } from "@bifurcate/lab/harness";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

/**
 * What is sent to 10.92.0.1 arrives at the card with a VLAN tag that stands beside the frame and not in it, as a card's
 * own stripping and a sender's tx-vlan-hw-insert have it: it goes through a second veth pair, where a program gives it
 * the tag and sends it on to the card. The function returned takes the program away.
 */
function tagging(veth: VethPair, tci: number): () => void {
  const { peerNetns, peer } = veth;
  ip("-n", peerNetns, "link", "add", "tag0", "type", "veth", "peer", "name", "tag1");
  for (const end of ["tag0", "tag1"]) ip("-n", peerNetns, "link", "set", end, "up");
  ip("-n", peerNetns, "address", "add", "10.92.0.2/24", "dev", "tag0");
  const mac = (JSON.parse(veth.settings()) as { address: string }[])[0]!.address;
  ip("-n", peerNetns, "neigh", "add", "10.92.0.1", "lladdr", mac, "dev", "tag0");
  const netns = nativeKernel().openNetns(peerNetns);
  try {
    const index = (name: string): number => findLink(netns.links(), name).index;
    // bpf_skb_vlan_push(skb, htons(0x8100), tci); return bpf_redirect(peer, 0): code, registers, offset, immediate.
    const code: [number, number, number][] = [
      [0xb7, 2, 0x0081],
      [0xb7, 3, tci],
      [0x85, 0, 18],
      [0xb7, 1, index(peer)],
      [0xb7, 2, 0],
      [0x85, 0, 23],
      [0x95, 0, 0],
    ];
    const instructions = new Uint8Array(code.length * 8);
    const view = new DataView(instructions.buffer);
    for (const [i, [operation, register, value]] of code.entries()) {
      view.setUint8(8 * i, operation);
      view.setUint8(8 * i + 1, register);
      view.setInt32(8 * i + 4, value, true);
    }
    const program = nativeKernel().loadProgram({ type: "sched-cls", name: "tag", instructions, maps: [] });
    const attachment = netns.attachTcIngress(program, index("tag1"));
    program.close();
    return () => attachment.close();
  } finally {
    netns.close();
  }
}

const reason = cannotRun();

describe.skipIf(reason !== null)(
  `a split of a veth card gives${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let state: string;
    let port: Port | undefined;

    beforeEach(() => {
      veth = new VethPair();
      state = mkdtempSync(path.join(tmpdir(), "bifurcate-test-"));
    });
    afterEach(async () => {
      await port?.close().catch(() => undefined);
      port = undefined;
      veth.remove();
      rmSync(state, { recursive: true, force: true });
    });

    async function open(options: Partial<SplitOptions>): Promise<Port> {
      const flow = { flows: ["udp dst port 7777"], netns: veth.netns, stateDirectory: state };
      port = await split(veth.card, { ...flow, ...options });
      return port;
    }

    interface Said {
      readonly hash: number | undefined;
      readonly vlan: number | undefined;
      readonly timestamp: bigint | undefined;
    }

    /** What is known of each frame that a split takes of what `send` sends: `count` of them. */
    async function metadataOf(port: Port, count: number, send: () => Promise<unknown>): Promise<Said[]> {
      const seen: Said[] = [];
      const run = port.run((batch) => {
        for (const { hash, vlan, timestamp } of batch) seen.push({ hash, vlan, timestamp });
      });
      await send();
      // What has been sent may wait in the ring.
      await vi.waitFor(() => expect(seen.length).toBeGreaterThanOrEqual(count), 60_000);
      await port.close();
      await run;
      return seen;
    }

    const named = (port: Port): string[] =>
      Object.entries(port.path.metadata)
        .filter(([, what]) => !what.startsWith("not available"))
        .map(([name]) => name)
        .sort();

    it("each frame's hash and receive time from packet sockets", async () => {
      const port = await open({ backend: "af_packet", metadata: ["hash"] });
      expect(named(port)).toEqual(["hash", "timestamp"]);
      const seen = await metadataOf(port, 1, () => veth.tell(7777, 1));
      expect(seen).toEqual([{ hash: expect.any(Number), vlan: undefined, timestamp: expect.any(BigInt) }]);
      const ago = BigInt(Date.now()) * 1_000_000n - seen[0]!.timestamp!;
      expect(Number(ago / 1_000_000_000n)).toBeLessThan(60);
    });

    it("no hash from packet sockets that were not asked for it", async () => {
      const port = await open({ backend: "af_packet" });
      expect(named(port)).toEqual(["timestamp"]);
      const seen = await metadataOf(port, 1, () => veth.tell(7777, 1));
      expect(seen).toEqual([{ hash: undefined, vlan: undefined, timestamp: expect.any(BigInt) }]);
    });

    it("each frame's hash and VLAN tag from the driver, where it is asked for them", async () => {
      const tagged = tagging(veth, 0x6007);
      const port = await open({ metadata: true });
      expect(port.path).toMatchObject({ backend: "af_xdp", xdp: "driver" });
      expect(named(port)).toEqual(["hash", "vlan"]);
      expect(port.path.metadata.timestamp).toBe("not available: a veth has no clock");
      const send = async (address: string): Promise<void> => {
        await veth.node(
          veth.peerNetns,
          `const socket = require("node:dgram").createSocket("udp4");
           let left = 3;
           const next = () => left-- ? socket.send("hello", 7777, "${address}", next) : socket.close();
           socket.bind(5000, next);`,
        );
      };
      const seen = await metadataOf(port, 6, async () => {
        await send(veth.address);
        await send("10.92.0.1");
      }).finally(tagged);
      expect(seen.map(({ vlan }) => vlan)).toEqual([undefined, undefined, undefined, 0x6007, 0x6007, 0x6007]);
      // One flow has one hash, another one another.
      const hashes = seen.map(({ hash }) => hash);
      expect(new Set(hashes.slice(0, 3)).size).toBe(1);
      expect(new Set(hashes.slice(3)).size).toBe(1);
      expect(hashes[0]).not.toBe(hashes[3]);
      expect(hashes.every((hash) => Number.isInteger(hash) && hash! > 0)).toBe(true);
      expect(seen.every(({ timestamp }) => timestamp === undefined)).toBe(true);
    });

    it.each<[string, Partial<SplitOptions>, string]>([
      ["generic mode", { mode: "generic", metadata: true }, "in generic mode the driver cannot be asked"],
      ["not asked for", {}, "the driver has it, and it was not asked for"],
    ])("no metadata, said with the reason: %s", async (_, way, why) => {
      const port = await open({ backend: "af_xdp", ...way });
      const said = `not available: ${why}`;
      expect(port.path.metadata).toMatchObject({ hash: said, vlan: said });
      expect(named(port)).toEqual([]);
      const seen = await metadataOf(port, 1, () => veth.tell(7777, 1));
      expect(seen).toEqual([{ hash: undefined, vlan: undefined, timestamp: undefined }]);
    });

    it.each([
      ["the kernel refuses the program that asks", "loadBoundProgram", "bpf(BPF_PROG_LOAD)"],
      ["the driver refuses to have it attached", "attachXdp", "bpf(BPF_LINK_CREATE)"],
    ] as const)("no metadata where %s: a step down, said, and the flow goes on", async (_, method, call) => {
      const refuse = vi.spyOn(Netns.prototype, method as "attachXdp").mockImplementationOnce(() => {
        throw Object.assign(new Error(`${call}: EOPNOTSUPP`), { code: "EOPNOTSUPP" });
      });
      try {
        const port = await open({ metadata: true });
        expect(refuse).toHaveBeenCalled();
        expect(port.path).toMatchObject({ backend: "af_xdp", xdp: "driver" });
        expect(port.path.notes).toContain(`no hash, vlan from the driver: ${call}: EOPNOTSUPP`);
        expect(named(port)).toEqual([]);
        const seen = await metadataOf(port, 1, () => veth.tell(7777, 1));
        expect(seen).toEqual([{ hash: undefined, vlan: undefined, timestamp: undefined }]);
      } finally {
        refuse.mockRestore();
      }
    });

    it("a packet of 9,000 bytes its hash too, and the driver needs no more rights than the split", async () => {
      ip("-n", veth.netns, "link", "set", veth.card, "mtu", "9000");
      ip("-n", veth.peerNetns, "link", "set", veth.peer, "mtu", "9000");
      const port = await open({ metadata: ["hash"] });
      expect(port.path.obtained.multiBuffer).toBe(true);
      const seen = await metadataOf(port, 1, () =>
        veth.node(
          veth.peerNetns,
          `const socket = require("node:dgram").createSocket("udp4");
           socket.send(Buffer.alloc(8972), 7777, "${veth.address}", () => socket.close());`,
        ),
      );
      expect(seen).toEqual([{ hash: expect.any(Number), vlan: undefined, timestamp: undefined }]);
      // CAP_PERFMON would let the verifier take more than it takes from the broker's kind of process.
      const rights = "--bounding-set=-all,+net_admin,+net_raw,+bpf,+ipc_lock";
      const words = [veth.card, "--flow", "all", "--metadata", "all", "--seconds", "0.1", "--json"];
      const said = ip(
        ...["netns", "exec", veth.netns, "setpriv", "--inh-caps=-all", rights],
        ...["env", `BIFURCATE_STATE_DIR=${state}`, process.execPath, cliPath, "split", ...words],
      );
      const [first = ""] = said.split("\n");
      expect(JSON.parse(first)).toMatchObject({
        path: {
          metadata: { hash: "the card's receive hash", vlan: expect.stringMatching(/^the tag/) as string },
        },
      });
    });
  },
);
