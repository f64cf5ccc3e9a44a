// A lease that is given back while its broker is gone, or the next one is just being told of it.

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BifurcateError } from "@bifurcate/control/errors";
import { BrokerConnection, type BrokerListener } from "@bifurcate/control/protocol/client";
import { LeaseHold } from "./hold.js";

const GONE = new BifurcateError("E_NO_BROKER", { what: "ask the broker", why: "the connection is closed" });

/** A connection, with what was asked over it. */
function connection(gone: boolean) {
  const answer = gone ? () => Promise.reject(GONE) : () => Promise.resolve();
  const follow = vi.fn<(listener: BrokerListener) => void>();
  const made = { resume: vi.fn(answer), return: vi.fn(answer), close: vi.fn(), follow };
  return made as typeof made & BrokerConnection;
}

/** Its broker has ended. */
const end = ({ follow }: ReturnType<typeof connection>): void => follow.mock.calls[0]![0].closed();

describe("a lease given back", () => {
  let old: ReturnType<typeof connection>;
  let next: ReturnType<typeof connection>;
  let hold: LeaseHold;
  let lost: string[];

  beforeEach(() => {
    vi.useFakeTimers();
    [old, next, lost] = [connection(true), connection(false), []];
    hold = new LeaseHold(old, "lease-1", (why) => void lost.push(why));
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  it("is given back to the next broker, which may have adopted it", async () => {
    vi.spyOn(BrokerConnection, "connect").mockResolvedValue(next);
    await hold.return();
    expect(next.return).toHaveBeenCalledWith("lease-1");
    expect(next.close).toHaveBeenCalled();
  });

  it("is given back to nobody where there is none", async () => {
    vi.spyOn(BrokerConnection, "connect").mockRejectedValue(GONE);
    await hold.return();
    expect(lost).toEqual([]);
  });

  it("does not go on under a broker that was being told of it meanwhile", async () => {
    for (const over of [() => hold.return(), () => Promise.resolve(hold.close())]) {
      [old, next] = [connection(true), connection(false)];
      hold = new LeaseHold(old, "lease-1", () => undefined);
      let told = (): void => undefined;
      next.resume.mockReturnValue(new Promise<void>((resolve) => (told = resolve)));
      const connect = vi
        .spyOn(BrokerConnection, "connect")
        .mockResolvedValueOnce(next)
        .mockRejectedValue(GONE);
      end(old);
      await vi.advanceTimersByTimeAsync(1_000);
      expect(next.resume).toHaveBeenCalledWith("lease-1");
      await over();
      told();
      await vi.advanceTimersByTimeAsync(5_000);
      expect(next.return).toHaveBeenCalledWith("lease-1");
      expect(next.close).toHaveBeenCalled();
      expect(connect.mock.calls.length).toBeLessThan(3);
      connect.mockRestore();
    }
  });

  it("is told of to the third broker when the second ended as soon as it had been told", async () => {
    const third = connection(false);
    next.follow.mockImplementation(({ closed }) => closed());
    vi.spyOn(BrokerConnection, "connect").mockResolvedValueOnce(next).mockResolvedValueOnce(third);
    end(old);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(third.resume).toHaveBeenCalledWith("lease-1");
    expect(lost).toEqual([]);
    await hold.return();
    expect(third.return).toHaveBeenCalledWith("lease-1");
  });
});
