// The kernel's own path: which route, and which socket, a packet meets that no program takes away.
import type { Facts } from "../../facts/facts.js";
import { complaint, type Complaint } from "../complaint.js";
import type { Packet } from "../packet/packet.js";
import type { Decide } from "./stage.js";

const ANY: readonly string[] = ["0.0.0.0", "::"];

/** The last stage. */
export const kernelPath: Decide = ({ card, example, route }, way) => {
  const said = (says: string, complaints: Complaint[] = []): ReturnType<Decide> => ({
    stage: { name: "kernel", says, complaints },
    way,
  });
  const { packet } = example;
  const { facts } = card;
  if (way.to === "nobody") return said("not asked: the packet does not get here");
  if (way.to === "user") return said("not asked: it sees nothing of a packet that user space takes");
  const maybe = way.to === "unsure" ? "if it gets here: " : "";
  if (packet.protocol === "arp") return said(`${maybe}its own ARP answers, for addresses that it has`);
  if (route === null)
    return said(`${maybe}packet sockets, bridges and VLANs may take it; its IP stack does not`);
  if ("refused" in route) {
    const says = `routing refuses ${packet.source} > ${packet.destination} from ${facts.link.name}: ${route.refused}`;
    return said(`${maybe}${says}`, [
      complaint(
        "no-route",
        says,
        `see: ip route get ${packet.destination} from ${packet.source} iif ${facts.link.name}`,
      ),
    ]);
  }
  switch (route.kind) {
    case "local":
    case "anycast":
    case "broadcast":
    case "multicast": {
      const { says, complaints } = listenerOf(facts, packet);
      return said(
        `${maybe}${packet.destination} is ${route.kind === "local" ? "an address of this machine" : `a ${route.kind} address`}: ${says}`,
        complaints,
      );
    }
    case "unicast": {
      const gateway = route.gateway === null ? "" : `, by way of ${route.gateway}`;
      return said(`${maybe}forwarded out of interface ${route.ifindex ?? "?"}${gateway}`);
    }
    default: {
      const says = `a route of kind ${route.kind} leads to ${packet.destination}: dropped`;
      return said(`${maybe}${says}`, [
        complaint("no-route", says, `see: ip route get ${packet.destination}`),
      ]);
    }
  }
};

function listenerOf(facts: Facts, packet: Packet): { says: string; complaints: Complaint[] } {
  const { protocol, destinationPort } = packet;
  if (protocol !== "tcp" && protocol !== "udp") return { says: "its own stack answers", complaints: [] };
  const heard = facts.listeners.find(({ socket }) => {
    const address = socket.localAddress.replace(/^::ffff:/i, "");
    // A socket of IPv6 on any address hears IPv4 too, unless it asked for IPv6 alone.
    const any = ANY.includes(address) && (socket.family === packet.version || address === "::");
    return (
      socket.protocol === protocol &&
      socket.localPort === destinationPort &&
      (any || address === packet.destination)
    );
  });
  if (heard !== undefined) {
    return {
      says: `${heard.holder ?? "a socket"} listens on ${protocol} port ${destinationPort}`,
      complaints: [],
    };
  }
  const answer = protocol === "udp" ? "ICMP port unreachable" : "a reset";
  const says = `nobody listens on ${protocol} port ${destinationPort}: ${answer} goes back`;
  return { says, complaints: [complaint("no-listener", says, "start the server, or split the flow")] };
}
