// The tests' oracle: the system's libpcap, through koffi.
import koffi from "koffi";

/** An expression as libpcap compiled it. */
export interface PcapProgram {
  /** pcap_offline_filter: whether the frame matches. */
  matches(frame: Uint8Array): boolean;
  free(): void;
}

export interface Libpcap {
  /** The program, or libpcap's error text. For DLT_EN10MB, netmask unknown. */
  compile(expression: string, optimise: boolean): PcapProgram | string;
}

const DLT_EN10MB = 1;
const SNAPSHOT = 262144;
const NETMASK_UNKNOWN = 0xffffffff;

/** Opens libpcap.so.0.8; where there is none, says why. */
export function openLibpcap(): Libpcap | { readonly missing: string } {
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load("libpcap.so.0.8");
  } catch (error) {
    return { missing: `libpcap.so.0.8 cannot be loaded (Debian: libpcap0.8): ${String(error)}` };
  }
  const openDead = library.func("void *pcap_open_dead(int, int)") as (link: number, snap: number) => unknown;
  const compile = library.func("int pcap_compile(void *, void *, const char *, int, uint32_t)") as (
    ...args: unknown[]
  ) => number;
  const errorText = library.func("const char *pcap_geterr(void *)") as (handle: unknown) => string;
  const filter = library.func("int pcap_offline_filter(void *, void *, void *)") as (
    ...args: unknown[]
  ) => number;
  const freeCode = library.func("void pcap_freecode(void *)") as (program: unknown) => void;
  const handle = openDead(DLT_EN10MB, SNAPSHOT);
  return {
    compile(expression, optimise) {
      // struct bpf_program: length, padding, pointer.
      const program = Buffer.alloc(16);
      const failed = compile(handle, program, expression, optimise ? 1 : 0, NETMASK_UNKNOWN);
      if (failed !== 0) return errorText(handle);
      return {
        matches(frame) {
          // struct pcap_pkthdr: two times 8 bytes of time, caplen, len.
          const header = Buffer.alloc(24);
          header.writeUInt32LE(frame.length, 16);
          header.writeUInt32LE(frame.length, 20);
          // One more byte, so that an empty frame has an address too.
          const bytes = Buffer.concat([frame, Buffer.alloc(1)]);
          return filter(program, header, bytes) !== 0;
        },
        free: () => freeCode(program),
      };
    },
  };
}
