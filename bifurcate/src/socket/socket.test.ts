// Both ends of a vhost-user socket through the API: frames between processes, who comes and goes, and bad input.

import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { open, type BifurcateError, type OpenOptions, type Port } from "bifurcate";
import { bundlePeer } from "../testing/bundle-peer.js";
import { roundTrip, SWAP, swap } from "../testing/frames.js";

const built = mkdtempSync(path.join(tmpdir(), "bifurcate-peer-"));
let peerFile: string;
beforeAll(() => {
  peerFile = bundlePeer(built);
});
afterAll(() => rmSync(built, { recursive: true, force: true }));

let folder: string;
let socket: string;
const ports: Port[] = [];
const children: ChildProcess[] = [];
const servers: Server[] = [];

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "bifurcate-socket-"));
  socket = path.join(folder, "s");
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const port of ports.splice(0)) await port.close().catch(() => undefined);
  for (const server of servers.splice(0)) server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function opened(spec: string, options: OpenOptions = {}): Promise<Port> {
  const port = await open(spec, options);
  ports.push(port);
  return port;
}

/** Another process that opens a spec, and does round trips or swaps when it is told. */
class Peer {
  readonly child: ChildProcess;
  constructor(spec: string) {
    this.child = fork(peerFile, [spec], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    children.push(this.child);
  }
  async answer(): Promise<unknown> {
    const [message] = (await once(this.child, "message")) as [unknown];
    return message;
  }
  async ask(what: object): Promise<unknown> {
    this.child.send(what);
    return this.answer();
  }
  async die(): Promise<void> {
    this.child.kill("SIGKILL");
    await once(this.child, "exit");
  }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 100_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function errorOf(promise: Promise<unknown>): Promise<BifurcateError> {
  return promise.then(
    () => Promise.reject(new Error("it did not fail")),
    (thrown: unknown) => thrown as BifurcateError,
  );
}

/** What met what, in the words of docs/vhost-user.md: `npm test` prints all such lines at its end. */
function met(
  ours: string,
  theirs: string,
  layout: "packed" | "split",
  queues = 1,
  what = "round trips",
): void {
  const row = [ours, theirs, layout.padEnd(6), what, `${queues} queue(s)`, "ok"];
  console.log(`INTEROP | ${row.join(" | ")} |`);
}

describe("two processes", () => {
  it.each(["packed", "split"] as const)(
    "a handler file answers a driver in another process: %s ring",
    async (layout) => {
      const device = await opened(`vhost-user:${socket},server,layout=${layout}`);
      expect(device.path).toMatchObject({
        backend: "vhost-user",
        queues: [0],
        mode: "copy",
        steering: "none",
      });
      expect([device.name, device.id]).toEqual([`vhost-user:${socket}`, null]);
      const file = path.join(folder, "swap.ts");
      writeFileSync(file, SWAP);
      const running = device.run({ file });
      const driver = new Peer(`virtio-user:${socket},layout=${layout}`);
      expect(await driver.answer()).toBe("open");
      expect(device.connection).toMatchObject({ connected: true, connections: 1, error: null, over: false });
      expect(device.connection!.features.includes("VIRTIO_F_RING_PACKED")).toBe(layout === "packed");
      for (const length of [60, 1500]) {
        expect(await driver.ask({ trips: 5000, length })).toEqual({ sent: 5000, returned: 5000 });
      }
      // What has been answered is counted a moment later.
      await until("all is counted", () => device.stats.sent >= 10_000);
      const { received, sent, invalidDescriptor, ringFull } = device.stats;
      expect({ received, sent, invalidDescriptor, ringFull }).toEqual({
        received: 10_000,
        sent: 10_000,
        invalidDescriptor: 0,
        ringFull: 0,
      });
      await device.close();
      await running;
      expect(existsSync(socket)).toBe(false);
      met("device", "our driver in another process", layout);
    },
  );

  it.each(["packed", "split"] as const)("jumbo frames travel whole both ways: %s ring", async (layout) => {
    const device = await opened(`vhost-user:${socket},server`);
    const running = device.run(swap);
    const driver = new Peer(`virtio-user:${socket},layout=${layout}`);
    await driver.answer();
    expect(await driver.ask({ trips: 200, length: 3800 })).toEqual({ sent: 200, returned: 200 });
    await device.close();
    await running;
    met("device", "our driver in another process", layout, 1, "merged buffers");
  });

  it("the driver may be the one that listens, and several queue pairs are served", async () => {
    const driver = await opened(`virtio-user:${socket},server,queues=2`);
    expect(driver.path).toMatchObject({ backend: "virtio-user", queues: [0, 1], mode: "zero-copy" });
    const device = new Peer(`vhost-user:${socket},queues=2`);
    await device.answer();
    await device.ask({ swap: true });
    await until("the agreement", () => driver.connection!.features.length > 0);
    expect(driver.connection!.features).toContain("VIRTIO_NET_F_MQ");
    expect(await roundTrip(driver, 3000)).toEqual({ sent: 3000, returned: 3000 });
    met("driver", "our device in another process, which connects", "split", 2);
  });

  it("ports that never sleep carry frames, in workers and here, and close", async () => {
    const device = await opened(`vhost-user:${socket},server,busyPoll`);
    expect(device.path.obtained?.busyPoll).toBe(true);
    const running = device.run(swap);
    const driver = new Peer(`virtio-user:${socket},busyPoll`);
    await driver.answer();
    expect(await driver.ask({ trips: 100, length: 60 })).toEqual({ sent: 100, returned: 100 });
    await device.stop();
    await running;
    const native = device.runNative("reflect");
    expect(await driver.ask({ trips: 100, length: 60 })).toEqual({ sent: 100, returned: 100 });
    await device.close();
    await native;
  });

  it.each(["packed", "split"] as const)(
    "a driver that is killed is told of, and the next one is served: %s ring",
    async (layout) => {
      const said: string[] = [];
      const device = await opened(`vhost-user:${socket},server`, { onWarning: (text) => said.push(text) });
      const running = device.run(swap);
      for (const connections of [1, 2]) {
        const driver = new Peer(`virtio-user:${socket},layout=${layout}`);
        await driver.answer();
        expect(await driver.ask({ trips: 500, length: 60 })).toEqual({ sent: 500, returned: 500 });
        expect(device.connection).toMatchObject({ connected: true, connections });
        await until(
          "the greeting",
          () => said.filter((text) => text.endsWith("is there")).length === connections,
        );
        await driver.die();
        await until(
          "the farewell",
          () => said.filter((text) => /gone|ended/.test(text)).length === connections,
        );
      }
      expect(device.connection!.connected).toBe(false);
      await device.close();
      await running;
      met("device", "our driver in another process, killed and started again", layout);
    },
  );

  it.each(["packed", "split"] as const)(
    "a device that is killed comes back, and the driver goes on: %s ring",
    async (layout) => {
      let device = new Peer(`vhost-user:${socket},server`);
      await device.answer();
      await device.ask({ swap: true });
      const driver = await opened(`virtio-user:${socket},layout=${layout}`);
      expect(await roundTrip(driver, 500)).toEqual({ sent: 500, returned: 500 });
      await device.die();
      await until("it is noticed", () => driver.connection?.connected === false);
      // The file of the socket was left behind: whoever listens next takes it over.
      device = new Peer(`vhost-user:${socket},server`);
      await device.answer();
      await device.ask({ swap: true });
      await until(
        "it is there again",
        () => driver.connection!.connections >= 2 && driver.connection!.connected,
      );
      expect(await roundTrip(driver, 500)).toEqual({ sent: 500, returned: 500 });
      met("driver", "our device in another process, killed and started again", layout);
    },
  );

  it("a peer that stops polling stops its own port alone", async () => {
    const [idle, busy] = [`${socket}1`, `${socket}2`];
    const stuck = await opened(`vhost-user:${idle},server`);
    const alive = await opened(`vhost-user:${busy},server`);
    const [silent, lively] = [new Peer(`virtio-user:${idle}`), new Peer(`virtio-user:${busy}`)];
    await Promise.all([silent.answer(), lively.answer()]);
    await until("both are there", () => stuck.connection!.connected && alive.connection!.connected);
    // Nobody receives from the first: its ring runs full, again and again, while the second is answered.
    const flood = stuck.run((batch) => void batch.count, { outputs: [] });
    const running = alive.run(swap);
    const source = await opened("loopback");
    const flooding = source.run(
      (batch) => {
        while (batch.next()) batch.send(60, 1);
      },
      { outputs: [stuck] },
    );
    await until("the ring is full", () => stuck.stats.ringFull > 10_000);
    expect(await lively.ask({ trips: 2000, length: 60 })).toEqual({ sent: 2000, returned: 2000 });
    for (const port of [source, stuck, alive]) await port.close();
    await Promise.all([flood, running, flooding]);
  });
});

describe("bad input", () => {
  it("nobody listens at the socket: E_SOCKET_MISSING, also where a dead process left its file", async () => {
    const error = await errorOf(open(`virtio-user:${socket}`));
    expect(error).toMatchObject({ code: "E_SOCKET_MISSING", what: `open virtio-user:${socket}` });
    expect(error.next).toContain(",server");
    const dead = new Peer(`vhost-user:${socket},server`);
    await dead.answer();
    await dead.die();
    expect(existsSync(socket)).toBe(true);
    expect((await errorOf(open(`vhost-user:${socket}`))).code).toBe("E_SOCKET_MISSING");
  });

  it("somebody listens there already, or the file is no socket: E_SOCKET_IN_USE", async () => {
    await opened(`vhost-user:${socket},server`);
    expect((await errorOf(open(`vhost-user:${socket},server`))).code).toBe("E_SOCKET_IN_USE");
    expect((await errorOf(open(`virtio-user:${socket},server`))).code).toBe("E_SOCKET_IN_USE");
    const file = path.join(folder, "notes.txt");
    writeFileSync(file, "not a socket");
    expect((await errorOf(open(`vhost-user:${file},server`))).code).toBe("E_SOCKET_IN_USE");
    expect(existsSync(file)).toBe(true);
    expect((await errorOf(open(`vhost-user:${file}`))).code).toBe("E_SOCKET_MISSING");
  });

  it("a folder that is not there: E_BAD_OPTION", async () => {
    expect((await errorOf(open(`vhost-user:${folder}/none/s,server`))).code).toBe("E_BAD_OPTION");
  });

  it("a device with fewer queues, or without the layout that was asked for: E_PEER_LACKS", async () => {
    await opened(`vhost-user:${socket},server,layout=split`);
    expect((await errorOf(open(`virtio-user:${socket},queues=2`))).code).toBe("E_PEER_LACKS");
    const packed = await errorOf(open(`virtio-user:${socket},layout=packed`));
    expect(packed.code).toBe("E_PEER_LACKS");
    expect(packed.why).toContain("the device does not offer VIRTIO_F_RING_PACKED");
  });

  it("a device that does not answer, or hangs up: E_PEER_FAILED", async () => {
    for (const [name, serve] of [
      ["rude", (stream: Socket) => stream.destroy()],
      ["silent", () => undefined],
    ] as const) {
      const at = `${socket}-${name}`;
      const server = createServer(serve);
      servers.push(server);
      await once(server.listen(at), "listening");
      const opening = errorOf(open(`virtio-user:${at}`)).then((error) => error.code);
      // While it waits, other ports open and move frames.
      await opened(`vhost-user:${socket},server`);
      const other = await opened(`virtio-user:${socket}`);
      if (name === "silent") expect(await Promise.race([opening, other.connection!.connected])).toBe(true);
      await other.close();
      for (const port of ports.splice(0)) await port.close();
      expect(await opening).toBe("E_PEER_FAILED");
    }
  });

  it("devices that hang keep nobody from files and names: more of them than libuv has threads", async () => {
    const streams: Socket[] = [];
    const server = createServer((stream) => streams.push(stream));
    servers.push(server);
    await once(server.listen(socket), "listening");
    let over = 0;
    const opening = Array.from({ length: 6 }, () =>
      errorOf(open(`virtio-user:${socket}`)).finally(() => over++),
    );
    await until("all wait for their answers, or one has given up", () => streams.length === 6 || over > 0);
    await stat(socket);
    expect(over).toBe(0);
    for (const stream of streams) stream.destroy();
    for (const error of await Promise.all(opening)) expect(error.code).toBe("E_PEER_FAILED");
  });

  const nonsense: [string, Buffer][] = [
    ["garbage", Buffer.alloc(64, 0xff)],
    ["half a header", Buffer.from([1, 0, 0, 0, 1])],
    // GET_FEATURES (request 1) with flags of version 1 and a payload that never comes.
    ["a message without its end", Buffer.from([1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0])],
    // SET_MEM_TABLE (5), one region, and no descriptor with it.
    [
      "a memory table without descriptors",
      Buffer.from([5, 0, 0, 0, 1, 0, 0, 0, 40, 0, 0, 0, 1, ...Array<number>(39).fill(0)]),
    ],
  ];
  it.each(nonsense)(
    "a peer that sends %s ends its own connection, and the next one is served",
    async (_, bytes) => {
      const said: string[] = [];
      const device = await opened(`vhost-user:${socket},server`, { onWarning: (text) => said.push(text) });
      const running = device.run(swap);
      const client = connect(socket);
      client.on("error", () => undefined);
      await once(client, "connect");
      client.end(bytes);
      await until("the reason is told", () =>
        said.some((text) => /connection was ended: vhost-user/.test(text)),
      );
      client.destroy();
      expect(device.connection).toMatchObject({ connected: false, over: false });
      expect(device.connection!.error).toMatch(/EPROTO|EINVAL/);
      const driver = new Peer(`virtio-user:${socket}`);
      await driver.answer();
      expect(await driver.ask({ trips: 100, length: 60 })).toEqual({ sent: 100, returned: 100 });
      expect(device.connection).toMatchObject({ connected: true, connections: 2 });
      await device.close();
      await running;
    },
  );
});
