// An interface that goes and comes back: name, MTU, addresses and routes on a real one.
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, expect, it } from "vitest";
import { nativeKernel } from "../native.js";
import { restoreInterfaces, saveInterfaces, type CardNetns } from "./interfaces.js";

const root = process.getuid?.() === 0;
const name = `bfcard${process.pid}`;

function ip(...words: string[]): string {
  return execFileSync("ip", ["-n", name, ...words], { encoding: "utf8" });
}

/** A veth stands for the card: its driver makes the interface anew. */
function appear(ifname: string): void {
  ip("link", "add", ifname, "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "other0");
  ip("link", "set", "other0", "up");
}

function standing(): string {
  return [
    ip("-o", "-4", "addr", "show", "dev", "card0"),
    ip("-o", "-6", "addr", "show", "dev", "card0", "scope", "global"),
    ip("-4", "route", "show", "table", "all", "dev", "card0"),
    ip("-6", "route", "show", "table", "all", "proto", "static"),
  ]
    .join("")
    .replace(/^\d+: /gm, "");
}

beforeAll(() => {
  if (root) execFileSync("ip", ["netns", "add", name]);
});
afterAll(() => {
  if (root) execFileSync("ip", ["netns", "del", name]);
});

it.skipIf(!root)("has its name, MTU, addresses and routes again, in every table", async () => {
  appear("card0");
  ip("link", "set", "card0", "mtu", "1400", "up");
  ip("addr", "add", "192.0.2.1/28", "brd", "+", "label", "card0:a", "dev", "card0");
  ip("addr", "add", "2001:db8::1/64", "nodad", "dev", "card0");
  ip("route", "add", "default", "via", "192.0.2.2", "dev", "card0", "metric", "7", "src", "192.0.2.1");
  ip("route", "add", "198.51.100.0/24", "via", "192.0.2.3", "dev", "card0", "table", "77", "mtu", "1300");
  ip("-6", "route", "add", "2001:db8:9::/48", "via", "2001:db8::2", "dev", "card0", "proto", "static");
  const before = standing();
  expect(before).toContain("default via 192.0.2.2");

  const netns = nativeKernel().openNetns(name) as unknown as CardNetns & { close(): void };
  const saved = saveInterfaces(netns, ["card0"]);
  ip("link", "del", "card0");
  appear("eth7");
  const restored = await restoreInterfaces(netns, saved, () => ["eth7"]);
  expect(restored).toEqual([{ name: "card0", left: [] }]);
  expect(standing()).toBe(before);
  expect(netns.links().find((link) => link.name === "card0")).toMatchObject({ mtu: 1400, up: true });

  // What is there already is left as it is.
  expect(await restoreInterfaces(netns, saved, () => ["card0"])).toEqual([{ name: "card0", left: [] }]);
  expect(standing()).toBe(before);
  netns.close();
});

it.skipIf(!root)("that does not come back is told, with its name", async () => {
  const netns = nativeKernel().openNetns(name) as unknown as CardNetns & { close(): void };
  const saved = [{ name: "card9", index: 9, mac: "02:00:00:00:00:09", mtu: 1500, up: false, standing: [] }];
  expect(await restoreInterfaces(netns, saved, () => [])).toEqual([
    { name: "card9", left: ["its driver made no interface"] },
  ]);
  netns.close();
});
