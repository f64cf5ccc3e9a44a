// Ports over verbs on a machine that has no RDMA device: words, and what each refusal says.

import { readdirSync } from "node:fs";
import { hasVerbsLibrary } from "@bifurcate/addon";
import { describe, expect, it } from "vitest";
import { open } from "../open.js";
import { parseSpec } from "../spec.js";

const bad = (why: string): unknown =>
  expect.objectContaining({ code: "E_BAD_OPTION", why: expect.stringContaining(why) as string });

describe("queue pairs by a word", () => {
  it("are raw packets when no other end is named", () => {
    expect(parseSpec("verbs:mlx5_0")).toEqual({
      device: "verbs",
      name: "mlx5_0",
      port: 1,
      meeting: null,
      gid: null,
      queues: 1,
      frames: 4096,
      frameSize: 2048,
      ringSize: 256,
      busyPoll: false,
    });
  });

  it("carry datagrams when one is", () => {
    expect(parseSpec("verbs:rxe0,server=192.0.2.1:7471,queues=2,gid=1,port=2")).toMatchObject({
      meeting: { listens: true, at: { address: "192.0.2.1", port: 7471 } },
      queues: 2,
      gid: 1,
      port: 2,
    });
    expect(parseSpec("verbs:rxe0,peer=[2001:db8::1]:7471")).toMatchObject({
      meeting: { listens: false, at: { address: "2001:db8::1", port: 7471 } },
    });
  });

  it.each([
    ["verbs:", "the name of the RDMA device is missing"],
    ["verbs:a b", "the name of the RDMA device is missing"],
    ["verbs:rxe0,server", "server is an address and a port"],
    ["verbs:rxe0,server=7471", "server is an address and a port"],
    ["verbs:rxe0,peer=host:7471", "peer is an address and a port"],
    ["verbs:rxe0,peer=192.0.2.1:70000", "peer is an address and a port"],
    ["verbs:rxe0,peer=[192.0.2.1]:7471", "peer is an address and a port"],
    ["verbs:rxe0,peer=192.0.2.1:1,server=192.0.2.1:1", "exclude each other"],
    ["verbs:rxe0,queues=17", "queues is 1 to 16"],
    ["verbs:rxe0,gid=1", "gid is of datagrams"],
    ["verbs:rxe0,peer=192.0.2.1:1,ringSize=100", "power of two"],
    ["verbs:rxe0,peer=192.0.2.1:1,frames=100", "frames is at least 512"],
    ["verbs:rxe0,speed=9", "'speed' is not a key"],
  ])("refuse %s", (spec, why) => {
    expect(() => parseSpec(spec)).toThrow(bad(why) as Error);
  });
});

describe("opening them", () => {
  it("needs flows for raw packets, and has none with datagrams", async () => {
    await expect(open("verbs:rxe0")).rejects.toMatchObject({ code: "E_NO_FLOW" });
    const datagrams = open("verbs:rxe0,server=127.0.0.1:0", { flows: ["udp"] });
    await expect(datagrams).rejects.toEqual(bad("no flow rule brings them"));
    await expect(open("loopback", { flows: ["udp"] })).rejects.toEqual(bad("flows are of cards and verbs"));
    await expect(open("verbs:rxe0", { flows: ["len > 100"] })).rejects.toMatchObject({
      code: "E_FLOW_NO_RULE",
    });
  });

  it("says what is missing: rdma-core, or the device", async () => {
    const thrown = open("verbs:none0,server=127.0.0.1:0");
    if (!hasVerbsLibrary()) {
      await expect(thrown).rejects.toMatchObject({ code: "E_NO_RDMA_CORE" });
      return;
    }
    // With no RDMA in the kernel the library itself says ENOSYS.
    await expect(thrown).rejects.toMatchObject({ code: "E_NO_RDMA_DEVICE" });
    const there = (() => {
      try {
        return readdirSync("/sys/class/infiniband");
      } catch {
        return [];
      }
    })();
    expect(there).not.toContain("none0");
  });
});
