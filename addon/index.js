// Loads the native addon and gives its classes and functions names that ES modules can import.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const library = fileURLToPath(new URL("./bifurcate.node", import.meta.url));

function load() {
  try {
    return createRequire(import.meta.url)(library);
  } catch (cause) {
    const why = existsSync(library) ? `cannot be loaded: ${cause.message}` : "is not there";
    const error = new Error(`the native addon ${library} ${why}; run "npm run build"`, { cause });
    error.code = "E_NO_ADDON";
    throw error;
  }
}

const native = load();

export const {
  Attachment,
  BpfMap,
  CardLoan,
  Connection,
  Descriptor,
  FileLock,
  KeptMemory,
  LinkWatch,
  Listener,
  NativeKernel,
  NativePort,
  NativeQueue,
  Netns,
  PASS_MARK,
  ProcessHandle,
  Program,
  RunCounting,
  connectLocal,
  listenLocal,
  lockFile,
  notifySupervisor,
  openAfPacket,
  openAfXdp,
  openLease,
  openLentCard,
  openLoopback,
  openProcess,
  hasVerbsLibrary,
  openVerbs,
  openVhostUser,
  openVirtioUser,
  openPci,
  pciBind,
  pciFunction,
  pciFunctions,
  pciGiveBack,
  pciHasDriver,
  pciIsOpen,
  pciLock,
  PciLock,
  pciSetVirtualFunctions,
  pinThread,
  takeQueue,
} = native;
