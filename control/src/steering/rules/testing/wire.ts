// A veth pair in a network namespace of its own, raw sockets on it, and programs attached: for tests, through koffi.
import koffi from "koffi";
import { spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { attachTcx } from "./bpf.js";

const library = koffi.load("libc.so.6");
const c = {
  unshare: library.func("int unshare(int)") as (flags: number) => number,
  setns: library.func("int setns(int, int)") as (fd: number, type: number) => number,
  socket: library.func("int socket(int, int, int)") as (
    domain: number,
    type: number,
    protocol: number,
  ) => number,
  bind: library.func("int bind(int, void *, unsigned int)") as (
    fd: number,
    address: Buffer,
    size: number,
  ) => number,
  send: library.func("long send(int, void *, unsigned long, int)") as (...args: unknown[]) => number,
  recv: library.func("long recv(int, void *, unsigned long, int)") as (...args: unknown[]) => number,
  setsockopt: library.func("int setsockopt(int, int, int, void *, unsigned int)") as (
    ...args: unknown[]
  ) => number,
  index: library.func("unsigned int if_nametoindex(const char *)") as (name: string) => number,
  close: library.func("int close(int)") as (fd: number) => number,
};
const CLONE_NEWNET = 0x40000000;
const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 0x0300; // htons(3)
const MSG_DONTWAIT = 0x40;
const SOL_SOCKET = 1;
const SO_ATTACH_BPF = 50;
const SO_RCVTIMEO = 20;

function check(result: number, what: string): number {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}

/** A raw socket on an interface. */
export interface RawSocket {
  send(frame: Uint8Array): void;
  /** The next frame's length, or null when none is there. */
  receive(wait: boolean): number | null;
  /** Attaches a loaded socket filter; frames that came before are thrown away. */
  attach(program: number): void;
  close(): void;
}

/** Both ends of a veth pair: what is sent on `near` arrives on `far`. */
export interface Wire {
  open(end: "near" | "far"): RawSocket;
  /** Attaches a program at `far`'s tc ingress, behind those already there; returns what takes it away. */
  attachIngress(program: number): () => void;
  /** Puts the process back into its namespace; the pair and its namespace then end. */
  leave(): void;
}

/** Moves this thread into a new network namespace with a veth pair. */
export function layWire(): Wire {
  const home = openSync("/proc/thread-self/ns/net", "r");
  check(c.unshare(CLONE_NEWNET), "unshare");
  const leave = (): void => {
    c.setns(home, CLONE_NEWNET);
    closeSync(home);
  };
  const ip = (...args: string[]): void => {
    const { status, stderr } = spawnSync("ip", args, { encoding: "utf8" });
    if (status !== 0) {
      leave();
      throw new Error(`ip ${args.join(" ")}: ${stderr}`);
    }
  };
  const carry = (): boolean => {
    const { stdout } = spawnSync("ip", ["-o", "link", "show", "type", "veth"], { encoding: "utf8" });
    return stdout.match(/ state UP /g)?.length === 2;
  };
  ip("link", "add", "near", "type", "veth", "peer", "name", "far");
  for (const end of ["near", "far"]) {
    // Nothing of the kernel's own shall cross the wire.
    ip("link", "set", end, "addrgenmode", "none");
    ip("link", "set", end, "up");
  }
  // Without a queue discipline, which comes with the carrier, the kernel throws away what is sent.
  for (const up = Date.now() + 60_000; !carry() && Date.now() < up;);
  return {
    open: (end) => rawSocket(c.index(end)),
    attachIngress: (program) => attachTcx(program, c.index("far")),
    leave,
  };
}

function rawSocket(ifindex: number): RawSocket {
  const fd = check(c.socket(AF_PACKET, SOCK_RAW, ETH_P_ALL), "socket(AF_PACKET)");
  const address = Buffer.alloc(20); // struct sockaddr_ll
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16LE(ETH_P_ALL, 2);
  address.writeInt32LE(ifindex, 4);
  check(c.bind(fd, address, address.length), "bind");
  const timeout = Buffer.alloc(16);
  timeout.writeBigInt64LE(60n, 0); // struct timeval: seconds; the kernel may take its time to hand a frame over
  check(c.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, 16), "SO_RCVTIMEO");
  const buffer = Buffer.alloc(2048);
  const receive = (wait: boolean): number | null => {
    const length = c.recv(fd, buffer, buffer.length, wait ? 0 : MSG_DONTWAIT);
    return length < 0 ? null : length;
  };
  return {
    send: (frame) => void check(c.send(fd, frame, frame.length, 0), `send of ${frame.length} bytes`),
    receive,
    attach(program) {
      const value = Buffer.alloc(4);
      value.writeInt32LE(program);
      check(c.setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, value, 4), "SO_ATTACH_BPF");
      while (receive(false) !== null);
    },
    close: () => void c.close(fd),
  };
}
