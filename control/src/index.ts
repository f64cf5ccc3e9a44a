// What the control package offers to the API and the commands.
export * from "./errors.js";
export type * from "./kernel.js";
