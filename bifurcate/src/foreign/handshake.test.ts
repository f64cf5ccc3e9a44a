// What an outsider is answered, whatever it says and claims.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Handshake } from "./handshake.js";

const PORT = "bff0000000a";
/** What DPDK 24.11 sends, in its order. */
const DPDK = ["/connect,some-pod", "/version", `/xsk_map_fd,${PORT}`, "/fin"];

describe("the handshake", () => {
  it("gives DPDK what it asks for, whatever pod it claims to be", () => {
    for (const name of ["some-pod", "another's pod", ""]) {
      const handshake = new Handshake(PORT);
      const answers = [`/connect,${name}`, ...DPDK.slice(1)].map((request) => handshake.answer(request));
      expect(answers).toEqual([
        { text: "/host_ok", map: false, end: false },
        { text: "0.1", map: false, end: false },
        { text: "/fd_ack", map: true, end: false },
        { text: "/fin_ack", map: false, end: true },
      ]);
    }
  });

  it("gives the map for its own port only, and to nobody who has not connected", () => {
    const handshake = new Handshake(PORT);
    expect(handshake.answer(`/xsk_map_fd,${PORT}`)).toEqual({ text: "/host_nak", map: false, end: true });
    handshake.answer("/connect,x");
    for (const other of ["/xsk_map_fd,eth0", "/xsk_map_fd", `/xsk_map_fd,${PORT}0`, "/xsk_map_fd,"]) {
      expect(handshake.answer(other), other).toEqual({ text: "/fd_nak", map: false, end: false });
    }
  });

  it("answers everything, and gives the map for nothing else", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constantFrom(...DPDK, "/config_busy_poll,64,20"), fc.string())),
        (requests) => {
          const handshake = new Handshake(PORT);
          let connected = false;
          for (const request of requests) {
            connected ||= request.split(",")[0] === "/connect";
            const { text, map } = handshake.answer(request);
            expect(text).not.toBe("");
            if (map)
              expect([connected, request.split(",").slice(0, 2)]).toEqual([true, ["/xsk_map_fd", PORT]]);
          }
        },
      ),
    );
  });
});
