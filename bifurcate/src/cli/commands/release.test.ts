// `bifurcate release LEASE` over brokers whose list is not to be had: the lease is taken back all the same.
import { beforeEach, describe, expect, it, vi } from "vitest";
import { BifurcateError } from "@bifurcate/control/errors";
import { makeProgram } from "../program.js";

const ID = "lease-1a2b3c4d";
const LISTED = { id: ID, device: "eth0", mechanism: "queue", transmit: "own", state: "live" };
const LATE = new BifurcateError("E_BROKER_PROTOCOL", {
  what: "talk to the broker",
  why: "it did not answer",
});
const UNKNOWN = new BifurcateError("E_NO_SUCH_LEASE", { what: `release ${ID}`, why: "there is none" });

const seen = vi.hoisted(() => ({
  /** What the broker lists, look by look. */
  lists: [] as (readonly object[] | Error)[],
  released: [] as string[],
  refusal: null as Error | null,
  open: 0,
}));

vi.mock("@bifurcate/control/protocol/client", () => ({
  BrokerConnection: {
    connect: () => {
      let open = true;
      seen.open++;
      const close = (): void => {
        if (open) seen.open--;
        open = false;
      };
      const list = (): Promise<unknown> => {
        const next = seen.lists.shift()!;
        if (!(next instanceof Error)) return Promise.resolve(next);
        // As a connection does that is not answered.
        close();
        return Promise.reject(next);
      };
      const release = (id: string): Promise<void> => {
        if (!open) return Promise.reject(new Error("the connection is closed"));
        if (seen.refusal !== null) return Promise.reject(seen.refusal);
        seen.released.push(id);
        return Promise.resolve();
      };
      return Promise.resolve({ list, release, close });
    },
  },
}));

/** What `bifurcate release` says on stdout. */
async function release(...flags: string[]): Promise<string> {
  let said = "";
  const streams = { out: (text: string) => void (said += text), err: () => undefined, live: false };
  const program = await makeProgram(streams, ["release"]);
  await program.parseAsync(["release", ID, ...flags], { from: "user" });
  return said;
}

describe("a lease is taken back", () => {
  beforeEach(() => Object.assign(seen, { released: [], refusal: null, open: 0 }));

  for (const { what, lists, words, known } of [
    { what: "and what is left of it is said", lists: [[LISTED], []], words: "its flow is with the kernel" },
    {
      what: "without the first list",
      lists: [LATE, [{ ...LISTED, state: "draining" }]],
      words: "its flow is with the",
    },
    {
      what: "without the second list",
      lists: [[LISTED], LATE],
      words: "it was taken back\n",
      known: { state: null },
    },
    {
      what: "without any list",
      lists: [LATE, LATE],
      words: "it was taken back\n",
      known: { device: null, mechanism: null, transmit: null, state: null },
    },
    {
      what: "that was granted after the first list and gone before the second",
      lists: [[], []],
      words: "it was taken back\n",
      known: { device: null, mechanism: null, transmit: null, state: "free" },
    },
  ]) {
    it(what, async () => {
      seen.lists = [...lists];
      expect(await release()).toContain(`${ID}: ${words}`);
      seen.lists = [...lists];
      const { released, errors } = JSON.parse(await release("--json")) as {
        released: object[];
        errors: unknown[];
      };
      expect(errors).toEqual([]);
      expect(released).toEqual([expect.objectContaining({ id: ID, ...known })]);
      expect(seen.released).toEqual([ID, ID]);
      expect(seen.open).toBe(0);
    });
  }

  it("but not one that the broker does not know: that is said", async () => {
    seen.refusal = UNKNOWN;
    seen.lists = [LATE];
    await expect(release()).rejects.toBe(UNKNOWN);
    expect(seen.open).toBe(0);
  });
});
