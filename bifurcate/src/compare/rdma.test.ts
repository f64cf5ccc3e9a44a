// Which RDMA devices a wire's ends have.

import { describe, expect, it } from "vitest";
import type { Files } from "@bifurcate/control";
import { overRdma } from "./rdma.js";
import type { Wire, WireEnd } from "./phases.js";

const end = (ifname: string): WireEnd => ({
  ifname,
  netns: null,
  mac: "02:00:00:00:00:01",
  address: "fe80::1",
});
const wire: Wire = { card: end("nic0"), peer: end("far0") };

/** A machine with RDMA devices, each of an interface. */
function machine(devices: Readonly<Record<string, string>>): Files {
  return {
    read: (path) => {
      const name = /^\/sys\/class\/infiniband\/(\w+)\/ports\/1\/gid_attrs\/ndevs\/0$/.exec(path)?.[1];
      return name === undefined || devices[name] === undefined ? null : `${devices[name]}\n`;
    },
    list: (path) => (path === "/sys/class/infiniband" ? Object.keys(devices) : []),
    exists: () => false,
    target: () => null,
  };
}

describe("datagrams on a wire", () => {
  it("go between the RDMA devices of its ends", () => {
    const files = machine({ rxe7: "other", rxe0: "nic0", rxe1: "far0" });
    expect(overRdma(wire, files)).toEqual({ kind: "verbs", card: "rxe0", peer: "rxe1" });
  });

  it.each([[{}], [{ rxe0: "nic0" }], [{ rxe1: "far0" }]])("cannot be measured with %j", (devices) => {
    expect(overRdma(wire, machine(devices))).toBeUndefined();
  });
});
