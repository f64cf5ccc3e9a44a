// The native addon, loaded when it is needed: errors and help come without it.
import { createRequire } from "node:module";
import { BifurcateError, messageOf } from "./errors.js";

/** The addon's classes and functions. @throws E_NO_ADDON where it cannot be loaded. */
export function loadAddon(): typeof import("@bifurcate/addon") {
  try {
    return createRequire(import.meta.url)("@bifurcate/addon") as typeof import("@bifurcate/addon");
  } catch (thrown) {
    throw new BifurcateError("E_NO_ADDON", {
      what: "load the native part of bifurcate",
      why: messageOf(thrown),
      cause: thrown,
    });
  }
}
