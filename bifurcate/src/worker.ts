// The thread of one queue: loads the bundled handler file and turns the queue until it is asked to stop.

import { parentPort, workerData } from "node:worker_threads";
import { pinThread, takeQueue } from "@bifurcate/addon";
import { BifurcateError } from "@bifurcate/control/errors";
import { checkHandler, type HandlerModule } from "./handler.js";
import type { NativeQueue } from "./native.js";
import { takeFor } from "./outputs.js";
import { QueueLoop } from "./queue-loop.js";
import { describe, type FromWorker, type WorkerData } from "./worker-messages.js";

function tell(message: FromWorker): void {
  parentPort!.postMessage(message);
}

async function load(data: WorkerData): Promise<Partial<HandlerModule>> {
  const what = `load the handler file ${data.file}`;
  let module: Partial<HandlerModule>;
  try {
    // The bundle brings its source map: a stack then names lines of the file that the user wrote.
    process.setSourceMapsEnabled(true);
    module = (await import(data.url)) as Partial<HandlerModule>;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new BifurcateError("E_HANDLER_FILE", { what, why: `it threw while it was loaded: ${why}`, cause });
  }
  if (module.handle === undefined) {
    const names = Object.keys(module).join(", ");
    const why = `it exports no function named handle (it exports: ${names === "" ? "nothing" : names})`;
    throw new BifurcateError("E_HANDLER_FILE", { what, why });
  }
  return module;
}

async function main(data: WorkerData): Promise<void> {
  // Up to here it was our own code that took its time; from here on it is the handler's.
  tell({ kind: "loading" });
  const module = await load(data);
  const { handle } = module;
  checkHandler(handle);
  if (data.core !== null) pinThread(data.core);
  const queue: NativeQueue = takeFor(takeQueue, data.port, data.portId, data.place, data.outputs);
  const onError = data.goOn ? (error: Error) => tell({ kind: "error", error: describe(error) }) : undefined;
  const { port, place, places } = data;
  const loop = new QueueLoop(queue, handle, { port, place, places, mayBlock: true, onError });
  const { context } = loop;
  try {
    await module.start?.(context);
  } catch (cause) {
    queue.release();
    const why = `start() threw: ${cause instanceof Error ? cause.message : String(cause)}`;
    throw new BifurcateError("E_HANDLER_THREW", { what: `start the handler ${data.file}`, why, cause });
  }
  tell({ kind: "running" });
  try {
    await loop.run();
  } finally {
    await module.stop?.(context);
  }
}

try {
  await main(workerData as WorkerData);
  tell({ kind: "ended" });
} catch (thrown) {
  tell({ kind: "failed", error: describe(thrown) });
}
// A handler's own timers and sockets do not keep the thread: its queue is given back.
setImmediate(() => process.exit(0));
