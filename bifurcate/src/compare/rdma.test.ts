// Which RDMA devices a wire's ends have.

import { describe, expect, it } from "vitest";
import { overRdma } from "./rdma.js";
import type { Wire, WireEnd } from "./phases.js";

const end = (ifname: string): WireEnd => ({
  ifname,
  netns: null,
  mac: "02:00:00:00:00:01",
  address: "fe80::1",
});
const wire: Wire = { card: end("nic0"), peer: end("far0") };
const rxe = (name: string, ifname: string | null) => ({ name, ifname });

describe("datagrams on a wire", () => {
  it("go between the RDMA devices of its ends", () => {
    const devices = [rxe("rxe7", "other"), rxe("rxe0", "nic0"), rxe("rxe1", "far0"), rxe("ib0", null)];
    expect(overRdma(wire, devices)).toEqual({ kind: "verbs", card: "rxe0", peer: "rxe1" });
  });

  it.each([[[]], [[rxe("rxe0", "nic0")]], [[rxe("rxe1", "far0")]]])("have no devices with %j", (devices) => {
    expect(overRdma(wire, devices)).toBeUndefined();
  });
});
