// A process of its own that opens a spec and does what its parent tells it: round trips, or answering.

import { open } from "bifurcate";
import { roundTrip, swap } from "./frames.js";

/** What a parent can ask for. */
interface Request {
  /** Send so many frames of `length` bytes, and say what came back. */
  readonly trips?: number;
  readonly length?: number;
  /** Answer what arrives from now on. */
  readonly swap?: true;
}

const port = await open(process.argv[2]!);
process.on("message", (request: Request) => {
  if (request.swap) {
    void port.run(swap);
    process.send!("swapping");
  } else {
    const done = roundTrip(port, request.trips ?? 1, request.length);
    void done.catch(String).then((result) => process.send!(result));
  }
});
process.on("disconnect", () => process.exit(0));
process.send!("open");
