// bifurcate: chosen flows of a network card in user space, everything else with the kernel.

export { BifurcateError, ERRORS, type ErrorCode, type Hint, type RxMetadata } from "@bifurcate/control";
export type { PortCard } from "./card/facts.js";
export { Batch } from "./batch.js";
export { Frame } from "./frame.js";
export type { Context, Handler, HandlerModule } from "./handler.js";
export type { Counters, Obtained } from "./native.js";
export { closeOnSignals } from "./open-ports.js";
export { open, type OpenOptions } from "./open.js";
export {
  Port,
  type CloseOptions,
  type NativeHandler,
  type NativeRunPortOptions,
  type PortConnection,
  type PortPath,
  type PortStats,
} from "./port.js";
export type { RunOutput } from "./outputs.js";
export type { HandlerFile, RunOptions } from "./run.js";
export { openSender, type SenderOptions } from "./split/sender.js";
export type { SplitOptions } from "./split/options.js";
export { split } from "./split/split.js";
