// Decisions about a card that changes while a split runs, from what observe() sees of it.
import { describe, expect, it } from "vitest";
import { readFacts } from "../facts/facts.js";
import { makePlan } from "../steering/make-plan.js";
import type { Plan, SplitRequest } from "../steering/plan.js";
import { applyStep } from "../transaction/change.js";
import { fakeFlow } from "../testing/fake-flow.js";
import { fakeCard, fakeLink, FakeKernel, type FakeCard } from "../testing/fake-kernel.js";
import { decide, type Decision, type WatchMemory } from "./decide.js";
import { observe, type Observation, type OwnState } from "./observe.js";

const RUNNING: OwnState = { attached: true, deadQueues: [] };

/** A split that runs on a card, and what is decided after `happen` happened to it. */
function after(
  happen: (kernel: FakeKernel, card: FakeCard) => Partial<OwnState> | undefined,
  request: Partial<SplitRequest> = {},
  card: FakeCard = fakeCard(),
  memory?: (plan: Plan) => WatchMemory,
): Decision {
  const kernel = new FakeKernel([card]);
  const facts = readFacts(kernel, kernel.netns, "eth0");
  const plan = makePlan(facts, { ifname: "eth0", flows: ["port 53"], ...request }, fakeFlow);
  for (const step of plan.steps) applyStep(kernel.netns, "eth0", step);
  const before: Observation = observe(kernel.netns, plan, RUNNING);
  expect(decide(plan, before, before)).toEqual({ do: "nothing" });
  const own = { ...RUNNING, ...happen(kernel, card) };
  return decide(plan, before, observe(kernel.netns, plan, own), memory?.(plan));
}

const shared = (): FakeCard => fakeCard({ rules: null, capacity: 0 });

describe("an interface that", () => {
  it("is deleted or moved stops the split", () => {
    expect(after((kernel) => void kernel.cards.splice(0))).toMatchObject({
      do: "stop",
      code: "E_INTERFACE_GONE",
    });
  });

  it("goes down makes it wait, and nothing is repaired meanwhile", () => {
    expect(
      after((_, card) => {
        card.link = fakeLink({ up: false });
        return { attached: false };
      }),
    ).toMatchObject({ do: "wait" });
  });

  it("is renamed changes nothing", () => {
    expect(after((_, card) => void (card.link = fakeLink({ name: "wan0" })))).toEqual({ do: "nothing" });
  });

  it("gets an MTU that driver mode cannot take has to be planned anew; one that fits changes nothing", () => {
    const igb = (): FakeCard => fakeCard({ driver: { driver: "igb", version: "", firmware: "", bus: "" } });
    expect(after((_, card) => void (card.link = fakeLink({ mtu: 9000 })), {}, igb())).toMatchObject({
      do: "replan",
    });
    expect(after((_, card) => void (card.link = fakeLink({ mtu: 1400 })), {}, igb())).toEqual({
      do: "nothing",
    });
  });
});

describe("ethtool -L", () => {
  it("with more queues: the new ones get sockets", () => {
    const decision = after(
      (kernel) => kernel.netns.setChannels("eth0", { rx: 0, tx: 0, combined: 6, other: 1 }) as undefined,
      {},
      shared(),
    );
    expect(decision).toMatchObject({ do: "repair", repairs: [{ kind: "open-queues", queues: [4, 5] }] });
  });

  it("with fewer queues: the sockets of the old ones are closed", () => {
    const decision = after(
      (kernel) => kernel.netns.setChannels("eth0", { rx: 0, tx: 0, combined: 2, other: 1 }) as undefined,
      {},
      shared(),
    );
    expect(decision).toMatchObject({ do: "repair", repairs: [{ kind: "close-queues", queues: [2, 3] }] });
  });

  it("gives a user's list of queues no new ones", () => {
    const decision = after(
      (kernel) => kernel.netns.setChannels("eth0", { rx: 0, tx: 0, combined: 6, other: 1 }) as undefined,
      { queues: [0, 1] },
      shared(),
    );
    expect(decision).toEqual({ do: "nothing" });
  });

  it("that takes the own queue away needs a new plan", () => {
    const decision = after((_, card) => {
      card.now = { ...card.now, combined: 2 };
      return undefined;
    });
    expect(decision).toMatchObject({ do: "replan" });
  });
});

describe("a driver reset", () => {
  it("that lost rules and RSS: they are made again", () => {
    const decision = after((kernel, card) => {
      card.rules?.clear();
      kernel.netns.setRss("eth0", null);
      return undefined;
    });
    expect(decision).toMatchObject({ do: "repair", repairs: [{ kind: "steps", steps: [0, 1] }] });
  });

  it("twice is somebody who means it: the split stops rather than fight", () => {
    const decision = after(
      (_, card) => void card.rules?.clear(),
      {},
      fakeCard(),
      (plan) => ({ queues: plan.path.queues, repaired: [1] }),
    );
    expect(decision).toMatchObject({ do: "stop", code: "E_CHANGED_UNDERNEATH" });
  });

  it("that killed sockets: they are opened again, but not on queues that are gone", () => {
    expect(after(() => ({ deadQueues: [1, 7] }), {}, shared())).toMatchObject({
      do: "repair",
      repairs: [{ kind: "open-queues", queues: [1] }],
    });
  });
});

describe("the XDP program", () => {
  it("that was detached is attached again", () => {
    expect(after(() => ({ attached: false }))).toMatchObject({ do: "repair", repairs: [{ kind: "attach" }] });
  });

  it("that was displaced by another one is not put back over it", () => {
    const decision = after((_, card) => {
      card.link = fakeLink({ xdp: { mode: "driver", programId: 7 } });
      return { attached: false };
    });
    expect(decision).toMatchObject({ do: "stop", code: "E_FOREIGN_XDP" });
  });
});
