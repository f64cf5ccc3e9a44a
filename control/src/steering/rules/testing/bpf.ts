// bpf(2) for tests of programs alone, through koffi: load, run on a frame, small maps.
import koffi from "koffi";
import type { BpfMap, ProgramSource } from "../../../kernel.js";

const SYS_BPF = 321n; // x86-64
const COMMAND = { mapCreate: 0, mapUpdate: 2, mapLookup: 1, progLoad: 5, testRun: 10 } as const;
const PROGRAM_TYPE = { "socket-filter": 1, "sched-cls": 3, xdp: 6 } as const;
const MAP_TYPE = { array: 2, "percpu-array": 6, devmap: 14, xskmap: 17 } as const;

koffi.struct("bf_map_create", {
  type: "uint32_t",
  keySize: "uint32_t",
  valueSize: "uint32_t",
  maxEntries: "uint32_t",
});
koffi.struct("bf_map_element", {
  fd: "uint32_t",
  pad: "uint32_t",
  key: "void *",
  value: "void *",
  flags: "uint64_t",
});
koffi.struct("bf_prog_load", {
  type: "uint32_t",
  count: "uint32_t",
  instructions: "void *",
  license: "void *",
  logLevel: "uint32_t",
  logSize: "uint32_t",
  log: "void *",
  kernelVersion: "uint32_t",
  flags: "uint32_t",
});
koffi.struct("bf_test_run", {
  fd: "uint32_t",
  value: "uint32_t",
  sizeIn: "uint32_t",
  sizeOut: "uint32_t",
  dataIn: "void *",
  dataOut: "void *",
  repeat: "uint32_t",
  duration: "uint32_t",
  contextIn: "uint32_t",
  contextOut: "uint32_t",
  context: "void *",
  contextBack: "void *",
});

const library = koffi.load("libc.so.6");
const declare = (
  type: string,
): ((number: bigint, command: number, attributes: object, size: number) => number) =>
  library.func(`long syscall(long, long, _Inout_ ${type} *, unsigned int)`) as never;
const call = {
  mapCreate: declare("bf_map_create"),
  element: declare("bf_map_element"),
  load: declare("bf_prog_load"),
  testRun: declare("bf_test_run"),
};
const closeFd = library.func("int close(int)") as (fd: number) => number;

function failed(what: string): Error {
  const errno = koffi.errno();
  const name = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? String(errno);
  return Object.assign(new Error(`${what}: ${name}`), { code: name });
}

/** Whether this process may load programs; if not, why. */
export function cannotLoad(): string | null {
  try {
    createMap("array", 4, 4, 1).close();
    return null;
  } catch (error) {
    return `bpf(2) is refused (root is needed): ${String(error)}`;
  }
}

/** A map with its descriptor. */
export interface TestMap extends BpfMap {
  readonly fd: number;
}

export function createMap(
  type: keyof typeof MAP_TYPE,
  keySize: number,
  valueSize: number,
  maxEntries: number,
): TestMap {
  const attributes = { type: MAP_TYPE[type], keySize, valueSize, maxEntries };
  const fd = call.mapCreate(SYS_BPF, COMMAND.mapCreate, attributes, koffi.sizeof("bf_map_create"));
  if (fd < 0) throw failed(`bpf(MAP_CREATE) ${type}`);
  const element = (command: number, key: Uint8Array, value: Uint8Array): void => {
    const result = call.element(
      SYS_BPF,
      command,
      { fd, pad: 0, key, value, flags: 0 },
      koffi.sizeof("bf_map_element"),
    );
    if (result < 0) throw failed(`bpf(map element) ${type}`);
  };
  return {
    fd,
    id: 0,
    update: (key, value) => element(COMMAND.mapUpdate, key, value),
    delete: () => undefined,
    lookup(key) {
      const value = new Uint8Array(type === "percpu-array" ? valueSize * 1024 : valueSize);
      element(COMMAND.mapLookup, key, value);
      return value;
    },
    close: () => void closeFd(fd),
  };
}

koffi.struct("bf_link_create", {
  program: "uint32_t",
  target: "uint32_t",
  attachType: "uint32_t",
  flags: "uint32_t",
  more: koffi.array("uint64_t", 4),
});
const linkCreate = declare("bf_link_create");

/** Attaches a loaded program at an interface's tc ingress (BPF_LINK_CREATE); returns what takes it away. */
export function attachTcx(program: number, ifindex: number): () => void {
  const attributes = { program, target: ifindex, attachType: 46, flags: 0, more: [0, 0, 0, 0] };
  const fd = linkCreate(SYS_BPF, 28, attributes, koffi.sizeof("bf_link_create"));
  if (fd < 0) throw failed("bpf(LINK_CREATE) tcx ingress");
  return () => void closeFd(fd);
}

/** A loaded program. */
export interface TestProgram {
  readonly fd: number;
  /** BPF_PROG_TEST_RUN: the program's value for a frame. The kernel refuses frames below 14 bytes (EINVAL). */
  run(frame: Uint8Array): number;
  close(): void;
}

/** Loads a program; an error has the verifier's last lines. */
export function loadProgram(source: ProgramSource): TestProgram {
  const instructions = Uint8Array.from(source.instructions);
  const view = new DataView(instructions.buffer);
  for (const { instruction, map } of source.maps)
    view.setInt32(instruction * 8 + 4, (map as TestMap).fd, true);
  const attempt = (log: Uint8Array | null): number =>
    call.load(
      SYS_BPF,
      COMMAND.progLoad,
      {
        type: PROGRAM_TYPE[source.type],
        count: instructions.length / 8,
        instructions,
        license: Buffer.from("Apache-2.0\0"),
        logLevel: log === null ? 0 : 1,
        logSize: log?.length ?? 0,
        log,
        kernelVersion: 0,
        flags: source.fragments === true ? 0x20 : 0,
      },
      koffi.sizeof("bf_prog_load"),
    );
  const fd = attempt(null);
  if (fd < 0) {
    const error = failed(`bpf(PROG_LOAD) ${source.name}`);
    const log = Buffer.alloc(1 << 20);
    attempt(log);
    error.message += `\n${log.toString("latin1").split("\0")[0]!.split("\n").slice(-25).join("\n")}`;
    throw error;
  }
  return {
    fd,
    run(frame) {
      const attributes = {
        ...{ fd, value: 0, sizeIn: frame.length, sizeOut: 0, dataIn: frame, dataOut: null, repeat: 1 },
        ...{ duration: 0, contextIn: 0, contextOut: 0, context: null, contextBack: null },
      };
      const result = call.testRun(SYS_BPF, COMMAND.testRun, attributes, koffi.sizeof("bf_test_run"));
      if (result < 0) throw failed(`bpf(PROG_TEST_RUN) of ${frame.length} bytes`);
      return attributes.value;
    },
    close: () => void closeFd(fd),
  };
}
