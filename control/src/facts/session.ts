// The SSH sessions that run over an interface, so that nobody takes his own away.
import type { SocketFacts } from "../kernel.js";

/** One established SSH connection into this machine. */
export interface Session {
  readonly socket: SocketFacts;
  /**
   * "own": SSH_CONNECTION of this process or an ancestor names it. "port": an established connection to
   * port 22, and nothing tells whose it is.
   */
  readonly known: "own" | "port";
}

/** Port of the SSH service, IANA's. */
const SSH_PORT = 22;

/**
 * The sessions whose local address is one of `local` (the addresses of the interface and of what is stacked
 * on it). `sshConnection` is sshd's variable: "client-address client-port server-address server-port",
 * ssh(1). Every other connection to port 22 counts too: behind sudo, tmux or a second hop it may be the
 * user's own, and if it is somebody else's, he would lose it just the same.
 */
export function sessionsOver(
  sockets: readonly SocketFacts[],
  local: readonly string[],
  sshConnection: string | null,
): Session[] {
  const here = new Set(local.map(plain));
  const own = ownSession(sshConnection);
  const others = sockets.filter(
    (each) =>
      each.protocol === "tcp" &&
      each.state === "established" &&
      each.localPort === SSH_PORT &&
      here.has(plain(each.localAddress)) &&
      !(
        own !== null &&
        each.remotePort === own.remotePort &&
        plain(each.remoteAddress) === own.remoteAddress
      ),
  );
  return [
    ...(own !== null && here.has(own.localAddress) ? [{ socket: own, known: "own" } as const] : []),
    ...others.map((socket) => ({ socket, known: "port" }) as const),
  ];
}

/** An address without a zone and without the IPv4-mapped prefix of a dual-stack socket. */
function plain(address: string): string {
  return address.replace(/%.*$/, "").replace(/^::ffff:(?=\d+\.)/i, "");
}

function ownSession(sshConnection: string | null): SocketFacts | null {
  const words = sshConnection?.trim().split(/\s+/) ?? [];
  const [remoteAddress, remotePort, localAddress, localPort] = words;
  if (remoteAddress === undefined || localAddress === undefined) return null;
  return {
    protocol: "tcp",
    family: plain(localAddress).includes(":") ? 6 : 4,
    localAddress: plain(localAddress),
    localPort: Number(localPort),
    remoteAddress: plain(remoteAddress),
    remotePort: Number(remotePort),
    state: "established",
    inode: 0,
  };
}
