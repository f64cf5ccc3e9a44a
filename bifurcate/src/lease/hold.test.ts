// A lease that is given back while its broker is gone, or the next one is just being told of it.

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BifurcateError } from "@bifurcate/control/errors";
import { BrokerConnection, type BrokerListener } from "@bifurcate/control/protocol/client";
import { LeaseHold } from "./hold.js";

const GONE = new BifurcateError("E_NO_BROKER", { what: "ask the broker", why: "the connection is closed" });

/** A connection, with what was asked over it. */
function connection(gone: boolean) {
  const answer = (_lease: string, _ms?: number) => (gone ? Promise.reject(GONE) : Promise.resolve());
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
    expect(next.return).toHaveBeenCalledWith("lease-1", 30_000);
    expect(next.close).toHaveBeenCalled();
  });

  it("is given back to nobody where there is none", async () => {
    vi.spyOn(BrokerConnection, "connect").mockRejectedValue(GONE);
    await hold.return();
    expect(lost).toEqual([]);
  });

  /** The next broker is being told of the lease; what is called when it answers. */
  async function telling(): Promise<() => void> {
    let told = (): void => undefined;
    next.resume.mockReturnValue(new Promise<void>((resolve) => (told = resolve)));
    end(old);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(next.resume).toHaveBeenCalledWith("lease-1");
    return told;
  }

  it("does not go on under a broker that was being told of it meanwhile", async () => {
    for (const over of [() => hold.return(), () => Promise.resolve(hold.close())]) {
      [old, next] = [connection(true), connection(false)];
      hold = new LeaseHold(old, "lease-1", () => undefined);
      const connect = vi
        .spyOn(BrokerConnection, "connect")
        .mockResolvedValueOnce(next)
        .mockRejectedValue(GONE);
      const told = await telling();
      await over();
      told();
      await vi.advanceTimersByTimeAsync(5_000);
      expect(next.return.mock.calls.map(([lease]) => lease)).toEqual(["lease-1"]);
      expect(next.close).toHaveBeenCalled();
      expect(connect).toHaveBeenCalledTimes(1);
      connect.mockRestore();
    }
  });

  it("is not left before the broker that was being told of it has answered to both", async () => {
    let done = (): void => undefined;
    next.return.mockReturnValue(new Promise<void>((resolve) => (done = resolve)));
    vi.spyOn(BrokerConnection, "connect").mockResolvedValueOnce(next);
    const told = await telling();
    let over = false;
    const given = hold.return().then(() => (over = true));
    told();
    await vi.advanceTimersByTimeAsync(1_000);
    expect([over, next.close.mock.calls.length]).toEqual([false, 0]);
    done();
    await given;
    await vi.advanceTimersByTimeAsync(0);
    expect(next.close).toHaveBeenCalledTimes(1);
  });

  it("is waited for 30 s in all, when its broker ends meanwhile and the next one hangs", async () => {
    old.return.mockImplementation(
      () => new Promise<void>((_, reject) => setTimeout(() => reject(GONE), 20_000)),
    );
    const connect = vi
      .spyOn(BrokerConnection, "connect")
      .mockImplementation(() => new Promise((resolve) => setTimeout(() => resolve(next), 4_000)));
    const given = hold.return();
    await vi.advanceTimersByTimeAsync(24_000);
    await given;
    expect(old.return).toHaveBeenCalledWith("lease-1", 30_000);
    expect(connect).toHaveBeenCalledWith(undefined, undefined, 10_000);
    expect(next.return).toHaveBeenCalledWith("lease-1", 6_000);
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
    expect(third.return).toHaveBeenCalledWith("lease-1", 30_000);
  });
});
