// Processes as /proc shows them: start times, ancestors, who holds a socket.
import { readFileSync, readdirSync, readlinkSync } from "node:fs";

/** A process that cannot be mistaken for a later one with the same number. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot when it started: field 22 of /proc/PID/stat, proc(5). */
  readonly startTime: string;
}

interface Stat {
  readonly parent: number;
  readonly state: string;
  readonly startTime: string;
}

function stat(pid: number): Stat | null {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return null;
  }
  // The command (field 2) may hold spaces and brackets: the fields start after its last bracket.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, parent, startTime] = [fields[0], fields[1], fields[19]];
  if (state === undefined || parent === undefined || startTime === undefined) return null;
  return { parent: Number(parent), state, startTime };
}

/** The identity of a running process, null when there is none of that number. */
export function identify(pid: number): ProcessIdentity | null {
  const found = stat(pid);
  return found === null ? null : { pid, startTime: found.startTime };
}

/** Whether that very process still runs; a zombie does not. */
export function isAlive(identity: ProcessIdentity): boolean {
  const found = stat(identity.pid);
  return (
    found !== null && found.startTime === identity.startTime && found.state !== "Z" && found.state !== "X"
  );
}

/** The process's own identity. */
export function ownIdentity(): ProcessIdentity {
  return identify(process.pid) ?? { pid: process.pid, startTime: "0" };
}

/** A name that is another one after every boot: settings of a card do not outlive it. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}

/** The value of a variable in the environment of this process or its nearest ancestor that has it. */
export function inheritedVariable(name: string): string | null {
  const own = process.env[name];
  if (own !== undefined) return own;
  for (let pid = process.ppid, depth = 0; pid > 1 && depth < 64; depth++) {
    try {
      const entry = readFileSync(`/proc/${pid}/environ`, "utf8")
        .split("\0")
        .find((line) => line.startsWith(`${name}=`));
      if (entry !== undefined) return entry.slice(name.length + 1);
    } catch {
      // Not ours to read: look further up.
    }
    const found = stat(pid);
    if (found === null) return null;
    pid = found.parent;
  }
  return null;
}

/** The names of the processes that hold each of the given sockets, by the sockets' inodes. */
export function socketHolders(inodes: ReadonlySet<number>): Map<number, string> {
  const holders = new Map<number, string>();
  if (inodes.size === 0) return holders;
  for (const pid of processNumbers()) {
    let descriptors: string[];
    try {
      descriptors = readdirSync(`/proc/${pid}/fd`);
    } catch {
      continue;
    }
    for (const descriptor of descriptors) {
      const inode = socketInode(`/proc/${pid}/fd/${descriptor}`);
      if (inode !== null && inodes.has(inode) && !holders.has(inode)) {
        holders.set(inode, `${commandOf(pid)} (pid ${pid})`);
      }
    }
  }
  return holders;
}

/** Numbers of all processes. */
export function processNumbers(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** The command name of a process, "?" when it is gone. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "?";
  }
}

function socketInode(path: string): number | null {
  try {
    const match = /^socket:\[(\d+)\]$/.exec(readlinkSync(path));
    return match?.[1] === undefined ? null : Number(match[1]);
  } catch {
    return null;
  }
}
