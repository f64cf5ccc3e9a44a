// A process that owns one split, for tests that kill it: `node owner.js NETNS IFNAME OPTIONS-AS-JSON`.
import { beginSplit } from "../begin.js";
import { BifurcateError, messageOf } from "../errors.js";
import type { Attachment } from "../kernel.js";
import { nativeKernel } from "../native.js";
import { compile, tcDropProgram } from "../steering/rules/index.js";
import type { Plan, Step } from "../steering/plan.js";
import { SplitTransaction } from "../transaction/transaction.js";

interface OwnerOptions {
  readonly flows: readonly string[];
  /** Steps besides those of the plan, for cards that have too few settings of their own. */
  readonly steps?: readonly Omit<Step, "device">[];
  readonly confirmSeconds?: number;
  /** Milliseconds to stay in open(), so that a test can kill it there. */
  readonly linger?: number;
  /** A clsact filter of that name is attached, which drops the discard service's datagrams. */
  readonly ingressFilter?: string;
}

function say(word: string, more: Record<string, unknown> = {}): void {
  process.stdout.write(`${JSON.stringify({ word, ...more })}\n`);
}

async function main(netns: string, ifname: string, options: OwnerOptions): Promise<void> {
  const kernel = nativeKernel();
  const { flows, confirmSeconds } = options;
  const { prepared } = await beginSplit(kernel, { ifname, netns, flows, confirmSeconds });
  const device = { ifindex: prepared.plan.device.ifindex, name: ifname };
  const steps = [...prepared.plan.steps, ...(options.steps ?? []).map((step) => ({ ...step, device }))];
  const plan: Plan = { ...prepared.plan, steps, guardian: steps.length > 0 || confirmSeconds !== undefined };
  const transaction = new SplitTransaction(kernel, { ...prepared, plan });
  let attached: Attachment | undefined;
  const end = (why: string): void => {
    transaction.undo().then(
      (report) => {
        say("undone", { why, report });
        process.exit(0);
      },
      (thrown: unknown) => {
        say("failed", { why: messageOf(thrown) });
        process.exit(1);
      },
    );
  };
  process.once("SIGTERM", () => end("SIGTERM"));
  process.once("SIGINT", () => end("SIGINT"));
  await transaction.apply({
    open: async () => {
      if (options.ingressFilter !== undefined) {
        const program = kernel.loadProgram(tcDropProgram(compile("udp dst port 9")));
        attached = prepared.netns.attachTcIngress(program, device.ifindex, options.ingressFilter);
      }
      say("opening", { id: transaction.id, guardian: transaction.guardian });
      await new Promise((resolve) => setTimeout(resolve, options.linger ?? 0));
    },
    close: () => attached?.close(),
    expired: () => end("expired"),
  });
  say("live", { id: transaction.id, guardian: transaction.guardian });
  setInterval(() => undefined, 1 << 30);
}

const [netns, ifname, options] = process.argv.slice(2);
main(netns ?? "", ifname ?? "", JSON.parse(options ?? "{}") as OwnerOptions).catch((thrown: unknown) => {
  say("failed", { code: thrown instanceof BifurcateError ? thrown.code : null, why: messageOf(thrown) });
  process.exit(1);
});
