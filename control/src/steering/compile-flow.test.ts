// Flows as the planner sees them, from real expressions.
import { describe, expect, it } from "vitest";
import { readFacts } from "../facts/facts.js";
import { fakeCard, FakeKernel } from "../testing/fake-kernel.js";
import { compileFlow } from "./compile-flow.js";
import { makePlan } from "./make-plan.js";

function ruleWords(text: string): string[] {
  const { ntuple } = compileFlow(text);
  return "rules" in ntuple ? ntuple.rules.map((rule) => rule.words) : [ntuple.why];
}

describe("a flow", () => {
  it("says its rules in ethtool's words", () => {
    expect(ruleWords("udp dst port 53").sort()).toEqual(["udp4 dst-port 53", "udp6 dst-port 53"]);
    expect(ruleWords("src net 10.0.0.0/8 and tcp src port 80 and ip")).toEqual([
      "tcp4 src-ip 10.0.0.0/255.0.0.0 src-port 80",
    ]);
    expect(ruleWords("vlan 7 and arp").join()).toContain("vlan 7");
    expect(ruleWords("all")).toEqual(["the whole card needs no rule"]);
  });

  it.each([
    ["vlan", true],
    ["udp or vlan 7", true],
    ["ether proto 0x8100", true],
    ["ether[12:2] = 0x88a8", true],
    ["not vlan", true],
    ["udp dst port 53", false],
    ["tcp[13] & 2 != 0", false],
    ["all", false],
  ])("%s looks at tags: %s", (text, looks) => {
    expect(compileFlow(text).vlan).toBe(looks);
  });

  it("knows what it shares with others", () => {
    const dns = compileFlow("udp dst port 53");
    expect(dns.overlaps(compileFlow("host 10.0.0.1"))).toBe(true);
    expect(dns.overlaps(compileFlow("udp dst port 54"))).toBe(false);
    expect(dns.overlaps(compileFlow("all"))).toBe(true);
  });

  it("becomes a plan with the rules' bytes", () => {
    const kernel = new FakeKernel([fakeCard()]);
    const facts = readFacts(kernel, kernel.netns, "eth0");
    const plan = makePlan(facts, { ifname: "eth0", flows: ["ip and udp dst port 53"] }, compileFlow);
    expect(plan.path).toMatchObject({ kind: "own-queue", queues: [3], rules: [15] });
    const [, first] = plan.steps;
    expect(first?.words).toBe("steer udp4 dst-port 53 to queue 3 (rule 15)");
    expect(first?.apply.kind === "ntuple" && first.apply.bytes?.length).toBe(2 * 168);
  });

  it("points at the character of a mistake", () => {
    expect(() => compileFlow("udp prot 53")).toThrow(
      expect.objectContaining({ code: "E_FLOW_SYNTAX" }) as Error,
    );
  });
});
