// What `bifurcate split --json` prints, one object a line, as far as the demo reads it.

/** How the flow travels. */
export interface DemoPath {
  readonly backend: string;
  readonly mode: string;
  readonly steering: string;
}

/** The first object: the split is in place. */
export interface SplitStarted {
  readonly event: "split";
  readonly path: DemoPath & { readonly queues: readonly number[]; readonly notes: readonly string[] };
}

/** The last object. */
export interface SplitEnded {
  readonly event: "end";
  readonly reason: string;
  readonly stats: { readonly received: number; readonly sent: number };
}

/** Any object. */
export type SplitEvent = SplitStarted | SplitEnded | { readonly event: "rates" | "warning" | "error" };

/** Reads a line of it; null for what is no event. */
export function parseEvent(line: string): SplitEvent | null {
  try {
    const value = JSON.parse(line) as unknown;
    return typeof value === "object" && value !== null && "event" in value ? (value as SplitEvent) : null;
  } catch {
    return null;
  }
}
