// The devices of a namespace as `bifurcate devices` tells them.

import { readFileSync } from "node:fs";
import { type Facts, findLink, readFacts } from "@bifurcate/control/facts/facts";
import type { Kernel, Link, Netns } from "@bifurcate/control/kernel";
import { messageOf } from "@bifurcate/control/errors";
import { receiveQueues } from "@bifurcate/control/steering/make-plan";
import { mechanisms, type Mechanism } from "./mechanisms.js";

/** One device. */
export interface Device {
  readonly name: string;
  readonly index: number;
  readonly mac: string;
  readonly driver: string | null;
  readonly bus: string | null;
  readonly mtu: number;
  readonly up: boolean;
  readonly carrier: boolean;
  /** Receive queues now, and the most that `ethtool -L` can set (null: it cannot). */
  readonly queues: { readonly now: number; readonly max: number | null } | null;
  /** Mbit/s; null where the driver does not say. */
  readonly speedMbits: number | null;
  readonly relations: {
    /** The bridge, bond or other device that it is a port of. */
    readonly master: { readonly name: string; readonly kind: string | null } | null;
    /** Its own VLAN, if it is a VLAN device. */
    readonly vlan: { readonly id: number; readonly on: string | null } | null;
    /** VLAN devices on it. */
    readonly vlans: readonly string[];
    /** Its ports, if it is a bridge or a bond. */
    readonly ports: readonly string[];
  };
  readonly xdp: { readonly programId: number; readonly mode: string } | null;
  readonly mechanisms: readonly Mechanism[];
}

/** /sys/class/net/NAME/speed, of the caller's own namespace only; -1 and EINVAL mean unknown. */
export function speedOf(ifname: string): number | null {
  try {
    const speed = Number(readFileSync(`/sys/class/net/${ifname}/speed`, "utf8"));
    return speed > 0 ? speed : null;
  } catch {
    return null;
  }
}

function relationsOf(link: Link, links: readonly Link[]): Device["relations"] {
  const byIndex = (index: number | null): Link | undefined => links.find((each) => each.index === index);
  const master = byIndex(link.master);
  const vlans = links.filter((each) => each.kind === "vlan" && each.link === link.index);
  return {
    master: master === undefined ? null : { name: master.name, kind: master.kind },
    vlan: link.vlanId === null ? null : { id: link.vlanId, on: byIndex(link.link)?.name ?? null },
    vlans: vlans.map((each) => each.name),
    ports: links.filter((each) => each.master === link.index).map((each) => each.name),
  };
}

const NAMES = ["af_xdp driver", "af_xdp generic", "zero-copy", "ntuple", "queue lease", "af_packet"] as const;

/** A device; where its facts cannot be read, each mechanism says why. */
function describe(link: Link, links: readonly Link[], facts: Facts | Error, speed: number | null): Device {
  const known = facts instanceof Error ? null : facts;
  const channels = known?.channels ?? null;
  return {
    name: link.name,
    index: link.index,
    mac: link.mac,
    driver: known?.driver.driver ?? link.kind,
    bus: known?.driver.bus || null,
    mtu: link.mtu,
    up: link.up,
    carrier: link.carrier,
    queues:
      channels === null
        ? { now: link.rxQueues, max: null }
        : // A driver that counts no queues has one, and cannot be given more.
          { now: Math.max(1, receiveQueues(channels.now)), max: receiveQueues(channels.max) || null },
    speedMbits: speed,
    relations: relationsOf(link, links),
    xdp: link.xdp,
    mechanisms:
      facts instanceof Error
        ? NAMES.map((name) => ({ name, can: false, why: messageOf(facts) }))
        : mechanisms(facts),
  };
}

/**
 * All devices of a namespace, loopback left out, or the one that is named.
 * @param speed Gives a device's speed; the file system shows only the caller's own namespace.
 * @throws E_NO_SUCH_INTERFACE when one is named that is not there.
 */
export function listDevices(
  kernel: Kernel,
  netns: Netns,
  ifname: string | null,
  speed: (ifname: string) => number | null,
): Device[] {
  const links = netns.links();
  const wanted = ifname === null ? links.filter((link) => !link.loopback) : [findLink(links, ifname)];
  return wanted.map((link) => {
    let facts: Facts | Error;
    try {
      facts = readFacts(kernel, netns, link.name);
    } catch (error) {
      facts = error instanceof Error ? error : new Error(String(error));
    }
    return describe(link, links, facts, speed(link.name));
  });
}
