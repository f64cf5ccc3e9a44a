// `bifurcate forward` on real traffic: a card's flow reaches a network behind a vhost-user socket, as a VM's would, and
// the card is as it was afterwards. The commands are those of docs/vhost-user.md.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { cli, endAll, errorOf, RunningSplit, startHere } from "@bifurcate/lab/harness";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { recipe, words } from "../testing/recipe.js";
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
      const { host: typed, undo } = recipe({ card: veth.card, socket, mac, address: far.address });
      expect(typed).toHaveLength(2);
      const [prepare, join] = typed.map(words) as [string[], string[]];
      expect([prepare[0], join[0], join[1], words(undo)[0]]).toEqual(["ip", "bifurcate", "forward", "ip"]);
      ip("-n", veth.netns, ...prepare.slice(1));
      expect(veth.settings()).not.toBe(before);
      const host = forward(
        ...join.slice(2).map((word) => (word.startsWith("vhost-user:") ? `${word},layout=${layout}` : word)),
      );
      const introduced = await host.event("forward");
      expect(introduced).toMatchObject({
        ports: [
          { name: veth.card, path: { backend: "af_xdp" } },
          { name: `vhost-user:${socket}`, id: null, path: { backend: "vhost-user", mode: "copy" } },
        ],
      });
      const vm = forward(far.card, `virtio-user:${socket}`, "--flow", "all");
      await vm.event("forward");
      await veth.reach(7777, far.address);
      expect(await veth.ask(7777, 50, far.address)).toEqual({ sent: 50, answered: 50 });
      // The host's own services stay with the kernel.
      expect(await veth.ask(7778, 10)).toEqual({ sent: 10, answered: 10 });
      expect(await host.event("warning")).toMatchObject({
        text: expect.stringContaining("is there") as string,
      });
      // Before the VM does: what comes for that afterwards has no way.
      const ended = await host.end();
      await vm.end();
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
      ip("-n", veth.netns, ...words(undo).slice(1));
      expect(veth.settings()).toBe(before);
      expect(readdirSync(path.join(folder, "state")).filter((name) => name !== "lab")).toEqual([]);
    },
  );

  it("two sockets joined: one VM reaches another, also after that one died and came again", async () => {
    // The network behind each card stands for a VM: its driver is ours, in a process of its own.
    const far = veth.behind();
    const [one, two] = ["vm0", "vm1"].map((name) => path.join(folder, `${name}.sock`));
    await veth.serve(7777, far.netns);
    const ends = [`vhost-user:${one},server`, `vhost-user:${two},server`];
    const host = new RunningSplit(startHere(ends, environment, "forward"));
    await host.event("forward");
    const boot = async (card: string, socket: string): Promise<RunningSplit> => {
      const vm = forward(card, `virtio-user:${socket}`, "--flow", "all");
      await vm.event("forward");
      return vm;
    };
    // The host looks at its connections now and then: what it says of one may come after the first frames.
    const told = (): string[] =>
      host.events
        .filter(({ event, text }) => event === "warning" && String(text).includes(two!))
        .map(({ text }) => String(text).split(": ").at(-1)!);
    const tells = (times: number) => host.event("warning", () => told().length >= times);
    const near = await boot(veth.card, one!);
    const first = await boot(far.card, two!);
    expect(await veth.ask(7777, 50, far.address)).toEqual({ sent: 50, answered: 50 });
    await tells(1);
    await first.end("SIGKILL");
    await tells(2);
    const second = await boot(far.card, two!);
    expect(await veth.ask(7777, 50, far.address)).toEqual({ sent: 50, answered: 50 });
    await tells(3);
    expect(told()).toEqual(["the other end is there", "the other end is gone", "the other end is there"]);
    await second.end();
    await near.end();
    const ended = await host.end();
    expect(ended.status).toBe(0);
    const { ports } = host.events.at(-1) as unknown as { ports: { stats: Record<string, number> }[] };
    // What one received went to the other, or found nobody there.
    for (const [from, to] of [ports, ports.toReversed()].map((each) => each.map(({ stats }) => stats))) {
      expect(from!["received"]).toBeGreaterThanOrEqual(100);
      expect(to!["sent"]! + to!["ringFull"]!).toBe(from!["received"]);
      expect(to!["invalidDescriptor"]).toBe(0);
    }
  });

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
