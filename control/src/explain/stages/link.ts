// The link: is it up, does the card take frames to that address, and are they short enough.
import { complaint, type Complaint } from "../complaint.js";
import type { Decide } from "./stage.js";

/** Headers that an MTU does not count: Ethernet and one VLAN tag. */
const HEADERS = 18;

/** The first stage. */
export const link: Decide = ({ card, counters, example }, way) => {
  const { name, up, carrier, mtu, mac, kind } = card.facts.link;
  const { packet } = example;
  const complaints: Complaint[] = [];
  let to: typeof way.to = way.to;
  if (!up || !carrier) {
    const says = up ? `${name} has no carrier: no frame arrives` : `${name} is down: no frame arrives`;
    complaints.push(
      complaint(
        "link-down",
        says,
        up ? "see to the cable, or the other end" : `sudo ip link set dev ${name} up`,
      ),
    );
    to = "nobody";
  }
  const target = packet.destinationMac ?? mac;
  const group = (Number.parseInt(target.slice(0, 2), 16) & 1) === 1;
  const foreign = !group && target !== mac;
  if (foreign && counters.promiscuity === 0) {
    // Virtual devices filter nothing: there the kernel's stack leaves such frames alone (PACKET_OTHERHOST).
    const virtual = kind !== null;
    const says = virtual
      ? `the frame is to ${target}, not to ${mac}: XDP sees it, the kernel's own stack drops it`
      : `the frame is to ${target}, not to ${mac}, and the card is not promiscuous: it drops it`;
    complaints.push(complaint("promiscuous-off", says, `sudo ip link set dev ${name} promisc on`));
    if (!virtual) to = "nobody";
  }
  if (packet.length > mtu + HEADERS) {
    const says = `the frame has ${packet.length} bytes and the MTU is ${mtu}: cards drop what is longer`;
    complaints.push(complaint("too-long", says, `sudo ip link set dev ${name} mtu ${packet.length - 14}`));
  }
  const whose = group ? "a group's address" : foreign ? "another's address" : "the card's address";
  const mode = counters.promiscuity > 0 ? ", promiscuous" : "";
  const says = `${up ? (carrier ? "up" : "no carrier") : "down"}, MTU ${mtu}${mode}; the frame is to ${whose}`;
  return { stage: { name: "link", says, complaints }, way: { ...way, to } };
};
