// A connection that is over for good while the engine's loop runs: the loop ends first, and the run still ends with the reason.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { parseSpec, type SocketSpec } from "../spec.js";
import { openSocket } from "./open.js";

const connection = vi.hoisted(() => ({
  connected: true,
  connections: 1,
  features: [] as string[],
  error: null as string | null,
  over: false,
}));

vi.mock("@bifurcate/addon", async (original) => ({
  ...(await original<object>()),
  openVirtioUser: () =>
    Promise.resolve({
      queues: 1,
      obtained: { refused: [] },
      get connection() {
        return { ...connection };
      },
      runNative: () => Promise.resolve(),
      stats: () => ({ total: {}, queues: [{}] }),
      stop: () => Promise.resolve([]),
      close: () => Promise.resolve([]),
    }),
}));

// The time between two looks never passes.
beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

it("ends a run with E_DEVICE_FAILED although nobody has looked since it was over", async () => {
  const port = await openSocket(parseSpec("virtio-user:/run/vm0.sock") as SocketSpec, {});
  await port.runNative("count");
  Object.assign(connection, { connected: false, over: true, error: "a ring's index went backwards" });
  await expect(port.runNative("count")).rejects.toMatchObject({
    code: "E_DEVICE_FAILED",
    why: connection.error,
  });
  await port.close();
});
