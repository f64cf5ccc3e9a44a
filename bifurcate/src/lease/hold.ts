// A lease that this process has: its broker may go and another come, until it is returned or taken back.

import { BifurcateError } from "@bifurcate/control/errors";
import { ANSWER_MS, BrokerConnection } from "@bifurcate/control/protocol/client";

/** Milliseconds between two attempts to find a broker again. */
const SEARCH_MS = 1_000;

/** Keeps a lease, over brokers that come one after another. */
export class LeaseHold {
  private ended = false;
  /** The next broker, while it is told of the lease. */
  private told: BrokerConnection | undefined;
  /** What became of giving it back; it does not reject. */
  private given: Promise<void> | undefined;

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
    for (let over = false; !over && !this.ended;) {
      await new Promise((resolve) => setTimeout(resolve, SEARCH_MS).unref());
      if (!this.ended) over = await this.tellNext();
    }
  }

  /** Looks for the next broker, and tells it that this process still has the lease. False: another is to be looked for. */
  private async tellNext(): Promise<boolean> {
    let broker: BrokerConnection;
    try {
      broker = await BrokerConnection.connect();
    } catch {
      // None is there yet.
      return false;
    }
    if (this.ended) {
      broker.close();
      return true;
    }
    this.told = broker;
    try {
      await broker.resume(this.id);
    } catch (thrown) {
      broker.close();
      if (isUnknown(thrown)) this.lose("the broker that came after does not know it");
      return false;
    } finally {
      this.told = undefined;
    }
    if (this.ended) {
      // It was given back, or closed, while the broker was being told: that one may believe that it goes on.
      await (this.given ?? broker.return(this.id).catch(() => undefined));
      broker.close();
      return true;
    }
    this.broker = broker;
    this.follow();
    return true;
  }

  /** It is no longer this process's. */
  lose(why: string): void {
    if (this.ended) return;
    this.ended = true;
    this.onLost(why);
  }

  /**
   * Gives it back, unless it was taken back before; the kernel has the flow then. A broker that lives and does not answer
   * is waited for 30 seconds, together with the next one where it ends meanwhile; the lease ends all the same, when that
   * broker goes on or the next one comes: its connection is closed, and nobody has its descriptors.
   */
  async return(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    this.given = this.giveBack(Date.now() + ANSWER_MS);
    await this.given;
  }

  private async giveBack(until: number): Promise<void> {
    const left = (): number => Math.max(until - Date.now(), 0);
    try {
      // One that is being told answers in order: that it knows the lease first.
      return await (this.told ?? this.broker).return(this.id, left());
    } catch (thrown) {
      if (!(thrown instanceof BifurcateError) || thrown.code !== "E_NO_BROKER") return;
    }
    try {
      // The next one may have the lease already, and not have been told yet that this process is there.
      const broker = await BrokerConnection.connect(undefined, undefined, left());
      await broker.return(this.id, left()).finally(() => broker.close());
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

function isUnknown(thrown: unknown): boolean {
  return thrown instanceof BifurcateError && thrown.code === "E_NO_SUCH_LEASE";
}
