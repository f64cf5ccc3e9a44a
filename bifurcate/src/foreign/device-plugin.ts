// The socket at which an outsider asks for its map, in the client's own namespaces: what stands in for the AF_XDP device
// plugin of Kubernetes.

import {
  locals,
  type Connection,
  type Descriptor,
  type Listener,
  type Locals,
} from "@bifurcate/control/broker/machine";
import { Handshake, LONGEST } from "./handshake.js";

/** Connections at a time: DPDK opens one a queue. */
const CONNECTIONS_MOST = 16;

/** Serves one map at one path, to processes of this user. */
export class DevicePlugin {
  private readonly listener: Listener;
  private readonly open = new Set<Connection>();

  /** @param path Must not exist; who made it removes it. */
  constructor(
    path: string,
    private readonly port: string,
    private readonly map: Descriptor,
    machine: Locals = locals(),
  ) {
    this.listener = machine.listen(path);
    this.accept();
  }

  private accept(): void {
    for (;;) {
      const connection = this.listener.accept();
      if (connection === null) break;
      const { uid, process: handle } = connection.peer();
      handle?.close();
      if (uid !== process.geteuid?.() || this.open.size >= CONNECTIONS_MOST) {
        connection.close();
        continue;
      }
      this.open.add(connection);
      this.listen(connection, new Handshake(this.port));
    }
    this.listener.onReady(() => this.accept());
  }

  private listen(connection: Connection, handshake: Handshake): void {
    connection.onReady(() => {
      if (this.turn(connection, handshake)) this.listen(connection, handshake);
      else this.end(connection);
    }, true);
  }

  /** Answers what is there; false at the end of the connection. */
  private turn(connection: Connection, handshake: Handshake): boolean {
    try {
      for (;;) {
        const got = connection.receive(LONGEST);
        if (got === null) return true;
        for (const each of got.descriptors) each.close();
        if (got.bytes === undefined || got.bytes === null || got.cut) return false;
        const { text, map, end } = handshake.answer(Buffer.from(got.bytes).toString("latin1"));
        const sent = connection.send(Buffer.from(text), (map ? [this.map] : []) as never);
        if (!sent || end) return false;
      }
    } catch {
      // It went away.
      return false;
    }
  }

  private end(connection: Connection): void {
    this.open.delete(connection);
    connection.close();
  }

  /** Listens no more. */
  close(): void {
    this.listener.close();
    for (const each of this.open) each.close();
    this.open.clear();
  }
}
