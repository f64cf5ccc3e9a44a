// A handler on a port's queues: a function on the calling thread, or a file with one worker a queue.

import { Worker } from "node:worker_threads";
import { BifurcateError } from "@bifurcate/control/errors";
import { abortSignal, call, readOptions, text, type Kind, type Kinds } from "./check-options.js";
import { bundleHandler } from "./handler-file.js";
import { within } from "./grace.js";
import { checkHandler, onErrorThrew, type Handler } from "./handler.js";
import type { NativePort, NativeQueue } from "./native.js";
import { outputIds, takeFor, type RunOutput, type TakeQueue } from "./outputs.js";
import { checkProcessors, cores } from "./processors.js";
import { QueueLoop } from "./queue-loop.js";
import { revive, type FromWorker, type WorkerData } from "./worker-messages.js";

/** How to run a handler. */
export interface RunOptions {
  /** Ends the run; the promise of run() then resolves. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Called with every error of the handler, whose batch was dropped; the run goes on. Without it the first error
   * ends the run, and run() rejects with it.
   */
  readonly onError?: ((error: Error) => void) | undefined;
  /**
   * Other ports that the handler may send out of: `batch.send(length, n)` reaches the n-th, counted from 1; 0 is the
   * port itself. Frames are copied to another port's pool. A port that runs a handler of its own can be an output
   * when that run was given `outputs` too, an empty list at least. Closing an output ends the run.
   */
  readonly outputs?: readonly RunOutput[] | undefined;
}

/** A handler file, run by one worker a queue. */
export interface HandlerFile {
  /** Its path: TypeScript or JavaScript, exporting `handle(batch, context)`, and if it likes `start` and `stop`. */
  readonly file: string;
  /** The processors to bind the workers to, one after another; not bound when left out. */
  readonly cores?: readonly number[] | undefined;
  /** Where what the handler prints goes (console.log); the process's own standard output when left out. */
  readonly stdout?: NodeJS.WritableStream | undefined;
}

/** A list of ports; which of them are any, outputIds() says. */
const outputs: Kind = { allowed: "a list of ports", accepts: (value) => Array.isArray(value) };
const writable: Kind = {
  allowed: "a stream that is written to",
  accepts: (value) =>
    typeof value === "object" && value !== null && "write" in value && typeof value.write === "function",
};
const RUN_KINDS: Kinds<RunOptions> = { signal: abortSignal, onError: call, outputs };
const FILE_KINDS: Kinds<HandlerFile> = { file: text, cores, stdout: writable };

/** How a handler is to be run. @throws E_BAD_OPTION */
export function readRunOptions(what: string, options: RunOptions): RunOptions {
  const { onError, ...rest } = readOptions(what, options, RUN_KINDS);
  if (onError === undefined) return rest;
  const guarded = (error: Error): void => {
    try {
      onError(error);
    } catch (thrown) {
      throw onErrorThrew(thrown);
    }
  };
  return { ...rest, onError: guarded };
}

/** A handler file, or null when the handler is none. @throws E_BAD_OPTION */
export function readHandlerFile(what: string, handler: Handler | HandlerFile): HandlerFile | null {
  if (typeof handler !== "object" || handler === null) return null;
  const read = readOptions(what, handler, FILE_KINDS);
  if ((read as Partial<HandlerFile>).file === undefined) return null;
  checkProcessors(what, "cores", read.cores);
  return read;
}

/** What a run needs of its port. */
export interface RunPort {
  readonly native: NativePort;
  readonly name: string;
  /** Hands a queue to the calling thread. */
  readonly takeQueue: TakeQueue;
}

/** A run under way. */
export interface Running {
  /** Resolves when it has ended; rejects with what ended it. */
  readonly done: Promise<void>;
  /**
   * Ends the threads of the queues at `places`, since their handlers do not come back, and after `graceMs` every
   * other that is still there: a handler may also hang while it is loaded, or in its start() or stop().
   */
  terminate(places: readonly number[], graceMs: number): Promise<void>;
  /** Whether the body of a `for await` loop has a batch now: it may be the very caller, so nobody waits for it. */
  isHeld?(): boolean;
  /** Carries out the verdicts of a batch that is held, as far as they stand, and gives all queues back. */
  giveBack?(): void;
}

/** How long a thread of ours may take to get as far as the handler's file, in milliseconds. */
const START_MS = 30_000;

/** Runs a function on the calling thread, all queues in turns. */
export function runHere(port: RunPort, handler: Handler, options: RunOptions): Running {
  checkHandler(handler);
  const { native, name, takeQueue } = port;
  const { onError } = options;
  const places = native.queues;
  const outputs = outputIds(name, native.id, options.outputs);
  const taken: NativeQueue[] = [];
  const loops: QueueLoop[] = [];
  try {
    for (let place = 0; place < places; place++) {
      const queue = takeFor(takeQueue, name, native.id, place, outputs);
      taken.push(queue);
      loops.push(new QueueLoop(queue, handler, { port: name, place, places, mayBlock: false, onError }));
    }
  } catch (thrown) {
    for (const queue of taken) queue.release();
    throw thrown;
  }
  const done = settle(
    loops.map((loop) => loop.run()),
    () => void native.stop(0),
  );
  return { done, terminate: () => Promise.resolve() };
}

/**
 * Runs a handler file: one worker a queue. Resolves when all of them run.
 * @param begun Told of the run before its workers have loaded the handler, which may never end.
 */
export async function runFile(
  port: RunPort,
  handler: HandlerFile,
  options: RunOptions,
  begun: (running: Running) => void,
): Promise<Running> {
  const { native, name } = port;
  const outputs = outputIds(name, native.id, options.outputs);
  const bundle = await bundleHandler(handler.file);
  const threads: HandlerThread[] = [];
  for (let place = 0; place < native.queues; place++) {
    const data: WorkerData = {
      portId: native.id,
      place,
      places: native.queues,
      port: name,
      url: bundle.url,
      core: handler.cores === undefined ? null : (handler.cores[place % handler.cores.length] ?? null),
      file: handler.file,
      outputs,
      goOn: options.onError !== undefined,
    };
    threads.push(new HandlerThread(data, options.onError, handler.stdout, () => stop()));
  }
  const stop = (): void => {
    void native.stop(0);
    // A thread that takes its queue only now has not heard it.
    void Promise.allSettled(threads.map((thread) => thread.running)).then(() => native.stop(0));
  };
  const done = settle(
    threads.map((thread) => thread.ended),
    stop,
  );
  done.catch(() => undefined);
  const terminate = async (places: readonly number[], graceMs: number): Promise<void> => {
    await Promise.all(places.map((place) => threads[place]?.terminate()));
    // A thread that is only just starting is given its time: what it waits for is a busy machine, not the handler.
    await within(START_MS, Promise.allSettled(threads.map((thread) => thread.loading)));
    await within(graceMs, done);
    await Promise.all(threads.map((thread) => thread.terminate()));
  };
  const running: Running = { done, terminate };
  begun(running);
  try {
    await Promise.all(threads.map((thread) => thread.running));
  } catch (thrown) {
    await native.stop(0);
    await done.catch(() => undefined);
    throw thrown;
  } finally {
    await bundle.dispose();
  }
  return running;
}

/** Waits for all; when one fails, asks the others to stop, and fails with the first error. */
async function settle(ends: readonly Promise<void>[], stop: () => void): Promise<void> {
  let failed = false;
  let error: unknown;
  await Promise.all(
    ends.map((end) =>
      end.catch((thrown: unknown) => {
        if (failed) return;
        failed = true;
        error = thrown;
        stop();
      }),
    ),
  );
  if (failed) throw error;
}

/** One worker and what became of it. */
class HandlerThread {
  /** Resolves when it begins to load the handler, or has ended. */
  readonly loading: Promise<void>;
  /** Resolves when the handler is loaded and its queue taken. */
  readonly running: Promise<void>;
  /** Resolves when the worker has ended in good order. */
  readonly ended: Promise<void>;
  private readonly worker: Worker;
  private state: "starting" | "loading" | "running" | "ended" = "starting";
  private terminated = false;

  constructor(
    data: WorkerData,
    onError: ((error: Error) => void) | undefined,
    stdout: NodeJS.WritableStream | undefined,
    stop: () => void,
  ) {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), {
      workerData: data,
      name: `queue ${data.place}`,
      stdout: stdout !== undefined,
    });
    if (stdout !== undefined) this.worker.stdout.pipe(stdout, { end: false });
    let isLoading!: () => void;
    const loads = new Promise<void>((resolve) => (isLoading = resolve));
    let hasStarted!: () => void;
    let failure: unknown;
    const started = new Promise<void>((resolve) => (hasStarted = resolve));
    this.ended = new Promise((resolve, reject) => {
      this.worker.on("message", (message: FromWorker) => {
        if (message.kind === "loading") {
          this.state = "loading";
          isLoading();
        } else if (message.kind === "running") {
          this.state = "running";
          hasStarted();
        } else if (message.kind === "error") {
          try {
            onError?.(revive(message.error));
          } catch (thrown) {
            failure ??= thrown;
            stop();
          }
        } else if (message.kind === "failed") failure ??= revive(message.error);
      });
      this.worker.on("error", (cause) => {
        const why = `its thread died: ${cause.message}`;
        failure = new BifurcateError("E_HANDLER_THREW", { what: `run the handler ${data.file}`, why, cause });
      });
      this.worker.on("exit", () => {
        if (this.terminated) failure = hangs(data, this.state !== "running");
        this.state = "ended";
        if (failure === undefined) resolve();
        else reject(failure as Error);
      });
    });
    this.loading = Promise.race([loads, this.ended]);
    this.loading.catch(() => undefined);
    this.running = Promise.race([started, this.ended]);
    this.running.catch(() => undefined);
  }

  /** Ends the thread from outside, wherever its handler is. */
  async terminate(): Promise<void> {
    if (this.state === "ended") return;
    this.terminated = true;
    await this.worker.terminate();
  }
}

function hangs(data: WorkerData, loading: boolean): BifurcateError {
  const where = loading
    ? "its module or its start() did not come to an end"
    : `it did not come back from a batch of queue ${data.place}, or from its stop()`;
  return new BifurcateError("E_HANDLER_HANGS", {
    what: `stop the handler ${data.file}`,
    why: `${where}, so its thread was ended`,
  });
}
