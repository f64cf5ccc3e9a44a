// The start of a split in one call: what dead splits left on the device is undone, then planned anew.
import { findLink } from "./facts/facts.js";
import type { Kernel } from "./kernel.js";
import { openNetns, prepareSplit, type PrepareOptions, type PreparedSplit } from "./prepare.js";
import { stateDirectory } from "./transaction/journal.js";
import { releaseStale, type StaleReport } from "./transaction/release.js";
import { SplitTransaction, type TransactionOptions } from "./transaction/transaction.js";

/** A split that is planned and not yet applied. */
export interface BegunSplit {
  readonly prepared: PreparedSplit;
  readonly transaction: SplitTransaction;
  /** What dead splits had left on the device. */
  readonly stale: StaleReport;
}

/** Releases stale splits of the device, then plans. Errors: those of prepareSplit. */
export async function beginSplit(
  kernel: Kernel,
  options: PrepareOptions,
  transactionOptions: TransactionOptions = {},
): Promise<BegunSplit> {
  const directory = options.stateDirectory ?? stateDirectory();
  const netns = openNetns(kernel, options.netns ?? null);
  let stale: StaleReport;
  try {
    const { index } = findLink(netns.links(), options.ifname);
    stale = await releaseStale(kernel, { directory, device: { netnsInode: netns.inode, ifindex: index } });
  } finally {
    netns.close();
  }
  const prepared = prepareSplit(kernel, options);
  return { prepared, transaction: new SplitTransaction(kernel, prepared, transactionOptions), stale };
}
