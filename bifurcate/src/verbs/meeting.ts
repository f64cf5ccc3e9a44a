// How two ports of datagrams find each other: a line each way over TCP, and the connection stays while both are there.

import { createServer, connect, type Server, type Socket } from "node:net";
import { BifurcateError, errnoOf, messageOf } from "@bifurcate/control/errors";
import type { NativeRdmaAddress } from "../native.js";
import type { Endpoint } from "../spec.js";

/** The version of the lines. */
const VERSION = 1;
/** The longest line that is read, in bytes: 16 queue pairs take some 300. */
const LINE_MAX = 4096;
/** How long the other end may take for its lines, in milliseconds: its kernel may have to look for the way to us. */
const PATIENCE_MS = 15_000;
/** How often the kernel asks whether the other end's machine is there, in milliseconds. */
const KEEPALIVE_MS = 5_000;
/** How long an end that connects waits before it tries again, in milliseconds. */
const AGAIN_MS = 1_000;
/** Numbers of queue pairs and keys. */
const QPN_MAX = 2 ** 24 - 1;
const QKEY_MAX = 2 ** 32 - 1;

/** What a meeting does with its port. */
export interface Meeter {
  /** How the other end reaches us. */
  readonly address: NativeRdmaAddress;
  /** Takes datagrams of that end from now on. */
  expect(other: NativeRdmaAddress): Promise<void>;
  /** Sends to that end from now on: it takes ours. */
  begin(other: NativeRdmaAddress): void;
  /** That end is gone; `why` is null when it said so itself. */
  leave(why: string | null): void;
}

/** What one end says of itself first. */
interface Hello extends NativeRdmaAddress {
  readonly bifurcate: "verbs";
  readonly version: number;
}

/** Reads what the other end says of itself. It is not trusted: each field is checked. @throws Error that says what is wrong */
export function parseHello(line: string, queues: number): NativeRdmaAddress {
  let said: unknown;
  try {
    said = JSON.parse(line);
  } catch {
    throw new Error("its first line is no JSON");
  }
  if (typeof said !== "object" || said === null) throw new Error("its first line is no object");
  const hello = said as Partial<Record<keyof Hello, unknown>>;
  if (hello.bifurcate !== "verbs") throw new Error("it does not say that it is a port over verbs");
  if (hello.version !== VERSION)
    throw new Error(`it speaks version ${String(hello.version)}, not ${VERSION}`);
  const whole = (value: unknown, least: number, most: number): value is number =>
    Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
  const { gid, qkey, largest } = hello;
  const queuePairs: unknown = hello.queuePairs;
  if (typeof gid !== "string" || gid.length > 45) throw new Error("it names no address");
  if (!whole(qkey, 0, QKEY_MAX)) throw new Error("it names no key");
  if (!whole(largest, 14, 65_535)) throw new Error("it does not say how long its frames may be");
  if (!Array.isArray(queuePairs) || !queuePairs.every((each) => whole(each, 1, QPN_MAX))) {
    throw new Error("it names no queue pairs");
  }
  if (queuePairs.length !== queues)
    throw new Error(`it has ${queuePairs.length} queues, and this end ${queues}`);
  return { gid, queuePairs: queuePairs as number[], qkey, largest };
}

/** Lines of a connection, one after another. @throws Error when it ends, is silent for too long, or says too much */
async function* lines(socket: Socket): AsyncGenerator<string, void, void> {
  let rest = "";
  for await (const chunk of socket) {
    rest += String(chunk);
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      yield rest.slice(0, end);
      rest = rest.slice(end + 1);
    }
    if (rest.length > LINE_MAX) throw new Error("its line does not end");
  }
}

/** Two ends that have met. */
interface Met {
  /** Resolves when the other end is gone: with the reason, or null when it said so itself. */
  readonly gone: Promise<string | null>;
}

/** The meeting over one connection: hello each way, ready each way. Resolves when both take datagrams; then watches. */
async function meet(socket: Socket, meeter: Meeter): Promise<Met> {
  socket.setEncoding("utf8").setNoDelay(true).setKeepAlive(true, KEEPALIVE_MS);
  const said = lines(socket);
  const next = async (): Promise<string> => {
    const { value, done } = await said.next();
    if (done === true) throw new Error("it closed the connection");
    return value;
  };
  // All of it has its time, not each byte: one who says a byte now and then would keep others out for hours.
  const late = setTimeout(
    () => socket.destroy(new Error(`it was not ready within ${PATIENCE_MS / 1000} s`)),
    PATIENCE_MS,
  );
  socket.once("close", () => clearTimeout(late));
  const hello: Hello = { bifurcate: "verbs", version: VERSION, ...meeter.address };
  socket.write(`${JSON.stringify(hello)}\n`);
  const other = parseHello(await next(), meeter.address.queuePairs.length);
  await meeter.expect(other);
  socket.write("ready\n");
  if ((await next()) !== "ready") throw new Error("it did not say that it is ready");
  clearTimeout(late);
  socket.setTimeout(0);
  meeter.begin(other);
  const gone = said.next().then(
    ({ done }) => (done === true ? null : "it said more than it may"),
    (thrown: unknown) => messageOf(thrown),
  );
  return { gone };
}

/** The two ends' meeting, which goes on until it is stopped. */
export interface Meeting {
  stop(): void;
}

/** The end that listens: one other end at a time. @throws E_SOCKET_IN_USE, E_BAD_OPTION */
export async function listen(
  what: string,
  at: Endpoint,
  meeter: Meeter,
): Promise<Meeting & { readonly port: number }> {
  const sockets = new Set<Socket>();
  let busy = false;
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined).on("close", () => sockets.delete(socket));
    if (busy) {
      socket.destroy();
      return;
    }
    busy = true;
    void meet(socket, meeter)
      .then(({ gone }) => gone)
      .catch((thrown: unknown) => messageOf(thrown))
      .then((why) => {
        socket.destroy();
        busy = false;
        if (server.listening) meeter.leave(why);
      });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(at.port, at.address, resolve);
  }).catch((thrown: unknown) => {
    const code = errnoOf(thrown) === "EADDRINUSE" ? "E_SOCKET_IN_USE" : "E_BAD_OPTION";
    const next =
      code === "E_SOCKET_IN_USE"
        ? undefined
        : "Name an address of this machine, and a port that this user may have.";
    throw new BifurcateError(code, { what, why: messageOf(thrown), next, cause: thrown });
  });
  server.unref();
  const stop = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  const { port } = server.address() as { port: number };
  return { stop, port };
}

/** The end that connects: resolves when they have met, and meets again when the other end went and came. @throws E_SOCKET_MISSING, E_PEER_FAILED */
export async function visit(what: string, at: Endpoint, meeter: Meeter): Promise<Meeting> {
  let stopped = false;
  let socket: Socket | undefined;
  let timer: NodeJS.Timeout | undefined;
  /** The last attempt came so far that the other end's datagrams are taken. */
  let expected = false;
  const watched: Meeter = {
    address: meeter.address,
    expect: (other) => {
      expected = true;
      return meeter.expect(other);
    },
    begin: (other) => meeter.begin(other),
    leave: (why) => meeter.leave(why),
  };
  const once = async (): Promise<Met> => {
    expected = false;
    const now = (socket = connect({ host: at.address, port: at.port }));
    try {
      await new Promise<void>((resolve, reject) => {
        now.setTimeout(PATIENCE_MS, () => now.destroy(new Error("nobody answered")));
        now.once("error", reject).once("connect", resolve);
      });
      now.on("error", () => undefined);
      const met = await meet(now, watched);
      // It keeps no process going that has nothing else to do.
      now.unref();
      return met;
    } catch (thrown) {
      now.destroy();
      throw thrown;
    }
  };
  const keep = ({ gone }: Met): void => {
    void gone.then((why) => {
      socket?.destroy();
      // An end that leaves by itself has nobody to tell of.
      if (stopped) return;
      meeter.leave(why);
      again();
    });
  };
  const again = (): void => {
    if (stopped) return;
    const failed = (thrown: unknown): void => {
      if (stopped) return;
      // Its datagrams are no longer taken: nobody's are, until somebody is met.
      if (expected) meeter.leave(messageOf(thrown));
      again();
    };
    timer = setTimeout(() => void once().then(keep, failed), AGAIN_MS).unref();
  };
  try {
    keep(await once());
  } catch (thrown) {
    if (thrown instanceof BifurcateError) throw thrown;
    const missing = ["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT"].includes(
      errnoOf(thrown) ?? "",
    );
    const next = missing
      ? "Start the other end first: the same device with server= in the place of peer=."
      : "Look at what the other end says: it has to be `verbs:` with server=, of the same version, with as many queues.";
    throw new BifurcateError(missing ? "E_SOCKET_MISSING" : "E_PEER_FAILED", {
      what,
      why: messageOf(thrown),
      next,
      cause: thrown,
    });
  }
  return {
    stop: () => {
      stopped = true;
      clearTimeout(timer);
      socket?.destroy();
    },
  };
}
