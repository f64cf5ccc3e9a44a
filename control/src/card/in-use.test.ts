// What holds a card where it is: routes, sessions, splits and what stands on it, also by way of what is stacked above.
import { describe, expect, it } from "vitest";
import type { SocketFacts } from "../kernel.js";
import { fakeLink } from "../testing/fake-kernel.js";
import { reasonsToStay, type Surroundings } from "./in-use.js";

const eth0 = fakeLink();
const around = (change: Partial<Surroundings> = {}): Surroundings => ({
  links: [eth0],
  addresses: [{ ifindex: 2, family: 4, address: "192.0.2.1", prefix: 24 }],
  routes: [{ ifindex: 2, family: 4, destination: "192.0.2.0/24", gateway: null }],
  sockets: [],
  sshConnection: null,
  splitsOn: () => [],
  ...change,
});
const ssh: SocketFacts = {
  protocol: "tcp",
  family: 4,
  localAddress: "192.0.2.1",
  localPort: 22,
  remoteAddress: "198.51.100.7",
  remotePort: 50000,
  state: "established",
  inode: 1,
};

describe("an interface", () => {
  it("may go when nothing needs it", () => expect(reasonsToStay(eth0, around())).toEqual([]));

  it("stays for the default route, of IPv4 or IPv6", () => {
    const routes = [{ ifindex: 2, family: 6, destination: "default", gateway: "fe80::1" } as const];
    expect(reasonsToStay(eth0, around({ routes }))).toEqual(["the default route (IPv6) leaves by eth0"]);
  });

  it("stays for an SSH session, the command's own above all", () => {
    const own = around({ sockets: [ssh], sshConnection: "198.51.100.7 50000 192.0.2.1 22" });
    expect(reasonsToStay(eth0, own)).toEqual([
      "the SSH session of this command from 198.51.100.7 runs over eth0",
    ]);
    expect(reasonsToStay(eth0, around({ sockets: [ssh] }))[0]).toContain("an SSH session from 198.51.100.7");
  });

  it("stays for what runs over a VLAN or bridge above it", () => {
    const bridge = fakeLink({ index: 9, name: "br0", kind: "bridge" });
    const port = fakeLink({ master: 9 });
    const reasons = reasonsToStay(
      port,
      around({
        links: [port, bridge],
        routes: [{ ifindex: 9, family: 4, destination: "default", gateway: "192.0.2.254" }],
      }),
    );
    expect(reasons).toEqual([
      "the default route (IPv4) leaves by eth0, through br0",
      "eth0 is a port of br0",
    ]);
  });

  it("stays for a split", () => {
    const reasons = reasonsToStay(eth0, around({ splitsOn: () => [{ id: "eth0-1a2b3c", pid: 7 }] }));
    expect(reasons).toEqual(["the split eth0-1a2b3c (pid 7) runs on eth0"]);
  });
});
