// A lease that this process has: its broker may go and another come, until it is returned or taken back.

import { BifurcateError } from "@bifurcate/control/errors";
import { BrokerConnection } from "@bifurcate/control/protocol/client";

/** Milliseconds between two attempts to find a broker again. */
const SEARCH_MS = 1_000;

/** Keeps a lease, over brokers that come one after another. */
export class LeaseHold {
  private ended = false;
  private searching = false;

  /** @param onLost Called once, when the lease was taken back. */
  constructor(
    private broker: BrokerConnection,
    readonly id: string,
    private readonly onLost: (why: string) => void,
  ) {
    this.follow();
  }

  private follow(): void {
    this.broker.onRevoked = (lease, why) => {
      if (lease === this.id) this.lose(why);
    };
    // The broker went; the lease goes on. The next broker watches this process, and hears that it is still there.
    this.broker.onClosed = () => void this.search();
  }

  private async search(): Promise<void> {
    if (this.searching) return;
    this.searching = true;
    while (!this.ended) {
      await new Promise((resolve) => setTimeout(resolve, SEARCH_MS).unref());
      if (this.ended) break;
      try {
        const broker = await BrokerConnection.connect();
        try {
          await broker.resume(this.id);
        } catch (thrown) {
          broker.close();
          if (thrown instanceof BifurcateError && thrown.code === "E_NO_SUCH_LEASE") {
            this.lose("the broker that came after does not know it");
          }
          continue;
        }
        this.broker = broker;
        this.follow();
        break;
      } catch {
        // None is there yet.
      }
    }
    this.searching = false;
  }

  /** It is no longer this process's. */
  lose(why: string): void {
    if (this.ended) return;
    this.ended = true;
    this.onLost(why);
  }

  /** Gives it back, unless it was taken back before; the kernel has the flow then. */
  async return(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    await this.broker.return(this.id).catch(() => undefined);
  }

  /** Closes the connection. */
  close(): void {
    this.ended = true;
    this.broker.close();
  }
}
