// Which SSH sessions count as being over an interface.
import { describe, expect, it } from "vitest";
import type { SocketFacts } from "../kernel.js";
import { sessionsOver } from "./session.js";

const ssh = (change: Partial<SocketFacts> = {}): SocketFacts => ({
  protocol: "tcp",
  family: 4,
  localAddress: "192.0.2.1",
  localPort: 22,
  remoteAddress: "192.0.2.9",
  remotePort: 40000,
  state: "established",
  inode: 1,
  ...change,
});

describe("sessions", () => {
  it("the command's own, by SSH_CONNECTION, whatever its port", () => {
    expect(sessionsOver([], ["192.0.2.1"], "192.0.2.9 40000 192.0.2.1 2222")).toMatchObject([
      { known: "own", socket: { localPort: 2222, remoteAddress: "192.0.2.9", remotePort: 40000 } },
    ]);
    expect(sessionsOver([], ["2001:db8::1"], "fe80::9%eth0 4 2001:db8::1 22")).toMatchObject([
      { known: "own", socket: { family: 6, remoteAddress: "fe80::9" } },
    ]);
  });

  it("not one that runs over another interface", () => {
    expect(sessionsOver([ssh()], ["198.51.100.1"], "192.0.2.9 40000 192.0.2.1 22")).toEqual([]);
  });

  it("established connections to port 22, which may be the user's behind sudo or tmux; once each", () => {
    expect(sessionsOver([ssh()], ["192.0.2.1"], null)).toMatchObject([{ known: "port" }]);
    expect(sessionsOver([ssh({ localAddress: "::ffff:192.0.2.1" })], ["192.0.2.1"], null)).toHaveLength(1);
    expect(sessionsOver([ssh()], ["192.0.2.1"], "192.0.2.9 40000 192.0.2.1 22")).toHaveLength(1);
    expect(sessionsOver([ssh({ state: "listen" }), ssh({ localPort: 80 })], ["192.0.2.1"], null)).toEqual([]);
    expect(sessionsOver([], ["192.0.2.1"], "nonsense")).toEqual([]);
  });
});
