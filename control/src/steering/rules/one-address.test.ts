// The address that a virtual function is given for a flow.
import { describe, expect, it } from "vitest";
import { compile } from "./compile.js";
import { oneAddress } from "./one-address.js";

const of = (...flows: string[]) => oneAddress(flows.map((flow) => compile(flow).tree));
const MAC = "52:54:00:bf:aa:01";
const BYTES = [0x52, 0x54, 0, 0xbf, 0xaa, 1];

describe("the address of a flow", () => {
  it.each([
    [[`ether dst ${MAC}`]],
    [[`ether dst ${MAC} and udp dst port 53`]],
    [[`ether dst ${MAC} and (udp dst port 53 or tcp dst port 53)`]],
    [[`ether dst ${MAC} and udp`, `ether dst ${MAC} and icmp`]],
    [[`ether dst ${MAC} or (ether dst ff:ff:ff:ff:ff:ff and arp)`]],
  ])("is found in %j", (flows) => {
    expect(of(...flows)).toEqual({ kind: "address", mac: BYTES });
  });

  it.each([
    ["udp dst port 53", "any address"],
    [`ether dst ${MAC} or arp`, "any address"],
    [`ether host ${MAC}`, "any address"],
    [`ether dst ${MAC} or ether dst 52:54:00:bf:aa:02`, "several addresses"],
    ["ether dst 01:00:5e:00:00:01", "multicast"],
    ["ether dst ff:ff:ff:ff:ff:ff", "one card"],
    [`ether dst ${MAC} and vlan 5`, "VLAN"],
    ["all", "whole card"],
  ])("is not there in '%s'", (flow, why) => {
    expect(of(flow)).toMatchObject({ kind: "none", reason: expect.stringContaining(why) as string });
  });
});
