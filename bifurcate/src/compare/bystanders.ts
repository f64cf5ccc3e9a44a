// The processes beside the program that stay through all mechanisms of a wire: the sender, and the kernel's own traffic.

import { availableParallelism } from "node:os";
import { Child } from "./child.js";
import type { EchoClientSettings } from "./echo-client-main.js";
import type { EchoSettings } from "./echo-server-main.js";
import { ECHO_PORT } from "./packet.js";
import type { Wire } from "./phases.js";
import type { SenderSettings } from "./sender-main.js";

/** Which processor sends, and which one receives; null where there is one. */
export const CORES: { readonly sender: number | null; readonly subject: number | null } =
  availableParallelism() > 1 ? { sender: 0, subject: 1 } : { sender: null, subject: null };

/** Started when first asked for, ended together. */
export class Bystanders {
  private readonly children: Child[] = [];
  private sending: Child | null = null;
  private echoing: Child | null = null;

  constructor(private readonly wire: Wire) {}

  /** Sends by a packet socket from the other end of the wire. @throws E_MEASUREMENT */
  async sender(): Promise<Child> {
    if (this.sending?.alive !== true) {
      const { card, peer } = this.wire;
      const settings: SenderSettings = { from: peer, to: card, out: peer, core: CORES.sender };
      this.sending = await this.start("sender", null, settings);
    }
    return this.sending;
  }

  /** Asks the card's end by the kernel's sockets. @throws E_MEASUREMENT */
  async echo(): Promise<Child> {
    if (this.echoing?.alive !== true) {
      const { card, peer } = this.wire;
      const server: EchoSettings = { address: card.address, ifname: card.ifname };
      const client: EchoClientSettings = { address: card.address, ifname: peer.ifname, port: ECHO_PORT };
      [, this.echoing] = await Promise.all([
        this.start("echo-server", card.netns, server),
        this.start("echo-client", peer.netns, client),
      ]);
    }
    return this.echoing!;
  }

  /** Ends all of them. */
  async end(): Promise<void> {
    for (const child of this.children.splice(0).reverse()) await child.end();
  }

  private async start(
    name: ConstructorParameters<typeof Child>[0],
    netns: string | null,
    settings: object,
  ): Promise<Child> {
    const child = new Child(name, netns, settings);
    this.children.push(child);
    await child.ready();
    return child;
  }
}
