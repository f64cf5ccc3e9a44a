// AF_XDP: a program in the driver redirects chosen frames to a socket's rings, copied or in place (zero-copy).
import { programConflict } from "../../steering/conflicts.js";
import { chooseWay, zeroCopyRefusal } from "../../steering/ladder.js";
import { missingCapabilities } from "../../prepare.js";
import { messageOf } from "../../errors.js";
import { cardFindings } from "../card-findings.js";
import { lackIf, type Lack, type Mechanism, type Probed } from "./mechanism.js";

/** In copy mode: any card that takes an XDP program, be it after the driver. */
export const afXdpCopy: Mechanism = { name: "AF_XDP copy", probe: common };

/** In zero-copy mode: the driver puts frames into the pool itself. */
export const afXdpZeroCopy: Mechanism = {
  name: "AF_XDP zero-copy",
  probe: (facts) => {
    const { card } = facts;
    const request = { ifname: card.facts.link.name, flows: [], backend: "af_xdp", mode: "driver" } as const;
    const { way, rungs } = chooseWay(card.facts, request);
    const driver = way === null ? (rungs[0]?.why ?? "the driver takes no XDP program") : null;
    const refusal =
      driver ?? zeroCopyRefusal(card.facts, { backend: "af_xdp", mode: "driver" }, "whole-card");
    const platform = card.accessPlatform === false;
    return [
      ...common(facts),
      ...lackIf(refusal !== null, refusal ?? "", null),
      ...lackIf(
        platform,
        "the virtio device has no VIRTIO_F_ACCESS_PLATFORM",
        "start the machine with iommu_platform=on,disable-legacy=on at its card",
      ),
    ];
  },
};

function common({ machine, card }: Probed): Lack[] {
  const { facts } = card;
  const { link } = facts;
  const missing = missingCapabilities("af_xdp", machine.capabilities);
  return [
    ...lackIf(
      machine.afXdp === "absent",
      "the kernel has no AF_XDP sockets",
      "use a kernel with CONFIG_XDP_SOCKETS",
    ),
    ...lackIf(link.loopback || !link.ethernet, `${link.name} carries no Ethernet frames`, null),
    ...lackIf(!link.up, `${link.name} is down`, `sudo ip link set dev ${link.name} up`),
    ...lackIf(missing.length > 0, `the process lacks ${missing.join(", ")}`, "run it as root"),
    ...program(card),
    ...cardFindings(card)
      .filter(({ name }) => name === "too-many-queues" || name === "queues-unequal")
      .map(({ says, mend }) => ({ what: says, mend })),
  ];
}

/** Somebody else's program: asked as a plan asks, which names whose it is. */
function program(card: Probed["card"]): Lack[] {
  try {
    programConflict(card.facts, "af_xdp");
    return [];
  } catch (thrown) {
    const next = thrown instanceof Error && "next" in thrown ? String(thrown.next) : null;
    return [{ what: messageOf(thrown), mend: next }];
  }
}
