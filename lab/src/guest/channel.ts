// The language between host and guest, over one virtio-serial port: JSON values, one a line.
//
//   host -> guest   {"name": [["52:54:00:bf:00:00", "nic0"], ...]}      first, once
//   guest -> host   {"ready": [{"name": "nic0", "pci": "0000:00:02.0"}, ...]}
//   host -> guest   {"run": 1, "argv": [...], "cwd": "...", "env": {...}}
//                   {"run": 1, "stdin": "base64"}   {"run": 1, "end": true}   {"run": 1, "signal": "SIGINT"}
//   guest -> host   {"run": 1, "stdout": "base64"}  {"run": 1, "stderr": "base64"}
//   either          {"run": 1, "took": "stdin"}     the last chunk of that stream was taken; the next one may come
//                   {"run": 1, "status": 0}         128 + N after signal N, 127 when there is no such program

/** What the host sends. */
export type ToGuest =
  | { readonly name: readonly (readonly [mac: string, name: string])[] }
  | {
      readonly run: number;
      readonly argv: readonly string[];
      readonly cwd: string;
      readonly env: Readonly<Record<string, string>>;
    }
  | { readonly run: number; readonly stdin: string }
  | { readonly run: number; readonly end: true }
  | { readonly run: number; readonly signal: NodeJS.Signals }
  | { readonly run: number; readonly took: OutputName };

/** A stream that the guest's commands write. */
export type OutputName = "stdout" | "stderr";

/** An interface as the guest found it. */
export interface FoundPort {
  readonly name: string;
  /** PCI address, e.g. "0000:00:02.0". */
  readonly pci: string;
}

/** What the guest sends. */
export type ToHost =
  | { readonly ready: readonly FoundPort[]; readonly missing: readonly string[] }
  | { readonly run: number; readonly stdout: string }
  | { readonly run: number; readonly stderr: string }
  | { readonly run: number; readonly took: "stdin" }
  | { readonly run: number; readonly status: number };

/** Cuts a stream of bytes into lines, and each line into its value. A line that is no JSON is passed over. */
export class Lines {
  private rest = "";

  /** The values that are whole with this chunk. Everything is ASCII: payloads are base64. */
  take(chunk: Buffer): unknown[] {
    const parts = (this.rest + chunk.toString("latin1")).split("\n");
    this.rest = parts.pop()!;
    return parts.filter(Boolean).flatMap((line): unknown[] => {
      try {
        return [JSON.parse(Buffer.from(line, "latin1").toString("utf8"))];
      } catch {
        return [];
      }
    });
  }
}
