// A lease that this process has: its broker may go and another come, until it is returned or taken back.

import { BifurcateError } from "@bifurcate/control/errors";
import { BrokerConnection } from "@bifurcate/control/protocol/client";

/** Milliseconds between two attempts to find a broker again. */
const SEARCH_MS = 1_000;

/** Keeps a lease, over brokers that come one after another. */
export class LeaseHold {
  private ended = false;

  /** @param onLost Called once, when the lease was taken back, with the grant already too; never within this call. */
  constructor(
    private broker: BrokerConnection,
    readonly id: string,
    private readonly onLost: (why: string) => void,
  ) {
    this.follow();
  }

  private follow(): void {
    this.broker.follow({
      revoked: (lease, why) => {
        if (lease === this.id) this.lose(why);
      },
      // The broker went; the lease goes on. The next broker watches this process, and hears that it is still there.
      closed: () => void this.search(),
    });
  }

  private async search(): Promise<void> {
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
        if (this.ended) {
          // It was given back, or closed, while the broker was being told: that one may believe that it goes on.
          await broker.return(this.id).catch(() => undefined);
          broker.close();
          break;
        }
        this.broker = broker;
        this.follow();
        break;
      } catch {
        // None is there yet.
      }
    }
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
    await this.broker.return(this.id).catch((thrown: unknown) => {
      const gone = thrown instanceof BifurcateError && thrown.code === "E_NO_BROKER";
      return gone ? this.returnToNext() : undefined;
    });
  }

  /** The next broker may have the lease already, and not have been told yet that this process is there. */
  private async returnToNext(): Promise<void> {
    try {
      const broker = await BrokerConnection.connect();
      await broker.return(this.id).finally(() => broker.close());
    } catch {
      // There is none: the next one finds that nobody has its descriptors.
    }
  }

  /** Closes the connection. */
  close(): void {
    this.ended = true;
    this.broker.close();
  }
}
