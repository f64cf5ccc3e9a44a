// The plan of a split by a virtual function: what it makes, and when there is none.
import { describe, expect, it } from "vitest";
import { BifurcateError } from "../errors.js";
import { readFacts, type Facts } from "../facts/facts.js";
import { fakeCard, fakeLink, FakeKernel } from "../testing/fake-kernel.js";
import type { SplitRequest } from "./plan.js";
import { renderPlan } from "./render.js";
import { makeVfPlan, type VfCard } from "./vf-plan.js";

const MAC = "52:54:00:bf:aa:01";
const FLOW = `ether dst ${MAC} and udp dst port 53`;
const card: VfCard = {
  function: { address: "0000:01:00.0", sriovTotal: 7, virtualFunctions: [] },
  probes: true,
};

function facts(change: Partial<Facts["link"]> = {}): Facts {
  const fake = fakeCard({ link: fakeLink(change) });
  const kernel = new FakeKernel([fake]);
  return readFacts(kernel, kernel.netns, fake.link.name);
}

const plan = (
  request: Partial<SplitRequest> = {},
  of: VfCard | null = card,
  link: Partial<Facts["link"]> = {},
) => makeVfPlan(facts(link), { ifname: "eth0", flows: [FLOW], backend: "vf", ...request }, of);

describe("a split by a virtual function", () => {
  it("is one step, which a guardian undoes", () => {
    const made = plan();
    expect(made.steps).toMatchObject([
      {
        when: "before",
        apply: { kind: "virtual-function", card: "0000:01:00.0", mac: MAC, probes: true, present: true },
        undo: { kind: "virtual-function", card: "0000:01:00.0", mac: MAC, probes: true, present: false },
      },
    ]);
    expect(made.path).toMatchObject({ backend: "vf", queues: [0], zeroCopy: "require", steering: "mac" });
    expect(made.guardian).toBe(true);
    // It goes into the journal.
    expect(JSON.parse(JSON.stringify(made))).toEqual(made);
  });

  it("can be read before it is done", () => {
    const text = renderPlan(plan());
    expect(text).toContain("a virtual function");
    expect(text).toContain("echo 1 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs");
    expect(text).toContain(`mac ${MAC} spoofchk on`);
  });

  it.each([
    ["a flow without an address", { flows: ["udp dst port 53"] }, card, {}, "E_BAD_OPTION"],
    ["the card's own address", { flows: [`ether dst ${MAC}`] }, card, { mac: MAC }, "E_BAD_OPTION"],
    ["two queues", { queues: 2 }, card, {}, "E_BAD_OPTION"],
    ["a queue lease", { steering: "lease" }, card, {}, "E_BAD_OPTION"],
    ["a card that is down", {}, card, { up: false }, "E_INTERFACE_DOWN"],
    ["what is no PCI card", {}, null, {}, "E_NO_VF"],
    ["a card without SR-IOV", {}, { ...card, function: { ...card.function, sriovTotal: 0 } }, {}, "E_NO_VF"],
    [
      "a card that has some",
      {},
      { ...card, function: { ...card.function, virtualFunctions: ["0000:01:10.0"] } },
      {},
      "E_CARD_IN_USE",
    ],
  ] as const)("is not made of %s", (_, request, of, link, code) => {
    try {
      plan(request, of as VfCard | null, link);
    } catch (thrown) {
      expect((thrown as BifurcateError).code).toBe(code);
      return;
    }
    throw new Error("it was made");
  });
});
