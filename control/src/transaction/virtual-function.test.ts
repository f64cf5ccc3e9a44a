// The step that makes a virtual function: what others made meanwhile is neither taken nor taken away.
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Netns } from "../kernel.js";
import type { Step } from "../steering/plan.js";
import { applyStep, checkStep, undoStep } from "./change.js";

const card = vi.hoisted(() => ({ functions: 0, removed: 0 }));
vi.mock("../card/virtual-function.js", () => ({
  virtualFunctions: () => card.functions,
  makeFunction: () => void (card.functions = 1),
  removeFunctions: () => {
    card.functions = 0;
    card.removed += 1;
  },
}));

const change = {
  kind: "virtual-function",
  card: "0000:01:00.0",
  mac: "02:00:00:00:00:07",
  probes: true,
} as const;
const step: Step = {
  device: { ifindex: 2, name: "nic0" },
  when: "before",
  apply: { ...change, present: true },
  undo: { ...change, present: false },
  words: "make a virtual function",
};

/** A namespace with the card's interface, or without any. */
function namespace(links: { name: string; index: number }[]): { netns: Netns; set: unknown[][] } {
  const set: unknown[][] = [];
  const netns = { links: () => links, setVirtualFunction: (...words: unknown[]) => void set.push(words) };
  return { netns: netns as unknown as Netns, set };
}

beforeEach(() => {
  card.functions = 0;
  card.removed = 0;
});

describe("a virtual function", () => {
  it("is made with its address and spoof check, and taken away", () => {
    const { netns, set } = namespace([{ name: "nic0", index: 2 }]);
    checkStep("nic0", step);
    applyStep(netns, "nic0", step);
    expect(set).toEqual([[2, 0, [2, 0, 0, 0, 0, 7], 0, true]]);
    expect(undoStep(netns, "nic0", step)).toEqual({ state: "undone" });
    expect(card).toEqual({ functions: 0, removed: 1 });
  });

  it("is not made where others were made since the plan", () => {
    for (card.functions of [1, 4]) {
      expect(() => checkStep("nic0", step)).toThrow(
        expect.objectContaining({ code: "E_CARD_IN_USE" }) as Error,
      );
    }
  });

  it("is no longer ours where somebody made others of it", () => {
    const { netns } = namespace([{ name: "nic0", index: 2 }]);
    applyStep(netns, "nic0", step);
    card.functions = 8;
    expect(undoStep(netns, "nic0", step)).toMatchObject({ state: "left" });
    expect(card).toEqual({ functions: 8, removed: 0 });
  });

  it("that nobody can give its address is an error, and taken away", () => {
    const { netns } = namespace([]);
    expect(() => applyStep(netns, "nic0", step)).toThrow(
      expect.objectContaining({ code: "E_INTERFACE_GONE" }) as Error,
    );
    undoStep(netns, "nic0", step);
    expect(card).toEqual({ functions: 0, removed: 1 });
  });
});
