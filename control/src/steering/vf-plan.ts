// The plan of a split by a virtual function: one is made of the card, gets an address, and user space has it alone.
import type { PciFunction } from "@bifurcate/addon";
import { BifurcateError } from "../errors.js";
import type { Facts } from "../facts/facts.js";
import { rxMetadata } from "./metadata.js";
import type { Plan, SplitRequest } from "./plan.js";
import { compile } from "./rules/compile.js";
import { oneAddress } from "./rules/one-address.js";

/** What is known of the card as a PCI function. */
export interface VfCard {
  readonly function: Pick<PciFunction, "address" | "sriovTotal" | "virtualFunctions">;
  /** Whether the kernel's drivers take virtual functions by themselves now. */
  readonly probes: boolean;
}

/** A MAC address as it is written. */
export const macWords = (mac: readonly number[]): string =>
  mac.map((byte) => byte.toString(16).padStart(2, "0")).join(":");

/**
 * Makes the plan; changes nothing.
 * @throws E_BAD_OPTION for a flow without one address and for options that a virtual function has no use for;
 *   E_INTERFACE_DOWN; E_NO_VF; E_CARD_IN_USE when the card has virtual functions already.
 */
export function makeVfPlan(facts: Facts, request: SplitRequest, card: VfCard | null): Plan {
  const { link, driver } = facts;
  const what = `split ${link.name} by a virtual function`;
  const bad = (why: string, next?: string): BifurcateError =>
    new BifurcateError("E_BAD_OPTION", { what, why, next });
  const found = oneAddress(request.flows.map((flow) => compile(flow).tree));
  if (found.kind === "none") {
    throw bad(
      found.reason,
      "A virtual function gets what is sent to its own address: begin each flow with `ether dst MAC and`.",
    );
  }
  const mac = macWords(found.mac);
  if (mac === link.mac) throw bad(`${mac} is the card's own address`, "Choose another address for the flow.");
  const { queues } = request;
  if (queues !== undefined && queues !== 1 && !(typeof queues === "object" && queues.join() === "0"))
    throw bad("a virtual function has one queue");
  if (request.steering === "lease") throw bad("a virtual function needs no queue lease");
  if (card === null || card.function.sriovTotal === 0) {
    const why = card === null ? `${link.name} is no PCI card` : `${driver.driver} has no SR-IOV`;
    throw new BifurcateError("E_NO_VF", { what, why });
  }
  if (!link.up) {
    const next = `Bring it up with \`ip link set dev ${link.name} up\`.`;
    throw new BifurcateError("E_INTERFACE_DOWN", { what, why: "it is administratively down", next });
  }
  const { address, virtualFunctions } = card.function;
  if (virtualFunctions.length > 0) {
    throw new BifurcateError("E_CARD_IN_USE", {
      what,
      why: `it has virtual functions already: ${virtualFunctions.join(", ")}; their number can only be changed from 0`,
      next: `Open one of them: \`bifurcate take ADDRESS\`, then \`bifurcate open pci:ADDRESS\`.`,
    });
  }
  const device = { ifindex: link.index, name: link.name };
  const change = { kind: "virtual-function", card: address, mac, probes: card.probes } as const;
  return {
    version: 1,
    device: {
      ...device,
      mac: link.mac,
      driver: driver.driver,
      bus: driver.bus,
      mtu: link.mtu,
      carrier: link.carrier,
      netnsInode: facts.netns.inode,
    },
    flows: request.flows,
    path: {
      kind: "virtual-function",
      backend: "vf",
      mode: null,
      queues: [0],
      zeroCopy: "require",
      steering: "mac",
      lease: null,
      rules: [],
      multiBuffer: false,
      fragments: false,
      hints: [],
      metadata: rxMetadata("pci", []),
    },
    ladder: [{ name: "a virtual function", taken: true, why: "asked for" }],
    steps: [
      {
        device,
        when: "before",
        apply: { ...change, present: true },
        undo: { ...change, present: false },
        words: `make a virtual function with the address ${mac}, spoof check on`,
      },
    ],
    outages: [{ what: "making the first virtual function resets the card", seconds: 3 }],
    bypasses: ["the kernel: the virtual function is a card of its own"],
    warnings: [],
    notes: [
      `what is sent to ${mac} and is not of the flow is dropped: the kernel has no interface with that address`,
    ],
    tap: request.tap ?? false,
    confirmSeconds: request.confirmSeconds ?? null,
    guardian: true,
  };
}
