// `bifurcate forward` on real traffic: a card's flow reaches a network behind a vhost-user socket, as a VM's would, and
// the card is as it was afterwards.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { cli, endAll, errorOf, RunningSplit, startHere } from "@bifurcate/lab/harness";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cannotRun, ip, VethPair } from "../testing/veth.js";

const reason = cannotRun();

describe.skipIf(reason !== null)(`forward${reason === null ? "" : ` (skipped: ${reason})`}`, () => {
  let veth: VethPair;
  let folder: string;
  let socket: string;
  let environment: NodeJS.ProcessEnv;

  beforeEach(() => {
    veth = new VethPair();
    folder = mkdtempSync(path.join(tmpdir(), "bifurcate-forward-"));
    socket = path.join(folder, "vm0.sock");
    environment = { BIFURCATE_STATE_DIR: path.join(folder, "state") };
  });
  afterEach(async () => {
    await endAll();
    veth.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  function forward(...args: string[]): RunningSplit {
    return new RunningSplit(startHere([...args, "--netns", veth.netns], environment, "forward"));
  }

  it.each(["packed", "split"])(
    "a card's flow reaches what is behind the driver of a socket, and back: %s ring",
    async (layout) => {
      // The far card's only neighbour stands for the VM: its driver is ours, in a process of its own.
      const far = veth.behind();
      const mac = ip("-n", far.netns, "-br", "link", "show", "peer1").split(/\s+/)[2]!;
      await veth.serve(7777, far.netns);
      await veth.serve(7778);
      const before = veth.settings();
      const device = `vhost-user:${socket},server,layout=${layout}`;
      const flow = `ether dst ${mac} or arp dst host ${far.address}`;
      const host = forward(veth.card, device, "--flow", flow);
      const introduced = await host.event("forward");
      expect(introduced).toMatchObject({
        ports: [
          { name: veth.card, path: { backend: "af_xdp" } },
          { name: `vhost-user:${socket}`, id: null, path: { backend: "vhost-user", mode: "copy" } },
        ],
      });
      const vm = forward(far.card, `virtio-user:${socket}`, "--flow", "all");
      await vm.event("forward");
      expect(await veth.ask(7777, 50, far.address)).toEqual({ sent: 50, answered: 50 });
      // The host's own services stay with the kernel.
      expect(await veth.ask(7778, 10)).toEqual({ sent: 10, answered: 10 });
      expect(await host.event("warning")).toMatchObject({
        text: expect.stringContaining("is there") as string,
      });
      await vm.end();
      const ended = await host.end();
      expect(ended.status).toBe(0);
      const [card, vhost] = (
        host.events.at(-1) as unknown as {
          ports: [{ stats: Record<string, number> }, { stats: Record<string, number> }];
        }
      ).ports;
      expect(card.stats["received"]).toBeGreaterThan(50);
      expect(vhost.stats["sent"]).toBe(card.stats["received"]);
      expect(card.stats["sent"]).toBe(vhost.stats["received"]);
      expect(vhost.stats["invalidDescriptor"]).toBe(0);
      expect(veth.settings()).toBe(before);
      expect(readdirSync(path.join(folder, "state")).filter((name) => name !== "lab")).toEqual([]);
    },
  );

  it("nobody listens, or somebody does already: coded errors, and the card is as it was", async () => {
    const before = veth.settings();
    const words = [veth.card, `virtio-user:${socket}`, "--flow", "udp", "--netns", veth.netns, "--json"];
    const missing = await cli("forward", ...words);
    expect([missing.status, errorOf(missing).code]).toEqual([1, "E_SOCKET_MISSING"]);
    const other = forward(veth.card, `vhost-user:${socket},server`, "--flow", "udp port 9");
    await other.event("forward");
    const taken = await cli("open", `vhost-user:${socket},server`, "--json");
    expect([taken.status, errorOf(taken).code]).toEqual([1, "E_SOCKET_IN_USE"]);
    await other.end("SIGTERM");
    expect(veth.settings()).toBe(before);
  });
});
