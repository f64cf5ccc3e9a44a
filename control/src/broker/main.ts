// The command bifurcated: `bifurcated --policy FILE [--socket PATH] [--state DIR] [--bpffs DIR] [--audit FILE]`.
import { parseArgs } from "node:util";
import { BifurcateError, exitStatus, messageOf, wrapError } from "../errors.js";
import { tellSupervisor } from "./machine.js";
import { brokerSocket } from "./socket.js";
import { checkPolicy, startBroker, USUAL, type BrokerOptions } from "./start.js";

const HELP = `Usage: bifurcated [options]

Leases flows of this machine's network cards to processes that have no rights at all.

  --policy FILE   who may lease what (${USUAL.policy})
  --socket PATH   where clients connect (/run/bifurcate/broker.sock)
  --state DIR     records of leases, which the next broker adopts (${USUAL.state})
  --bpffs DIR     a folder of a BPF file system (${USUAL.bpffs})
  --audit FILE    the audit log; stdout when left out
  --metrics AT    serve Prometheus metrics at ADDRESS:PORT or the path of a socket; off when left out
  --check         check the policy and end; with a broker's rights, also that they are enough for it
  --help, --version

SIGHUP reads the policy again. SIGTERM ends it; leases and their traffic go on until the next broker adopts them.
docs/broker.md shows a policy and the systemd unit.
`;

/** What was typed. @throws E_USAGE */
function read(
  argv: readonly string[],
  version: string,
): BrokerOptions & { check: boolean; help: boolean; version: string; tell: boolean } {
  const text = (left: string) => ({ type: "string", default: left }) as const;
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        policy: text(USUAL.policy),
        socket: text(brokerSocket()),
        state: text(USUAL.state),
        bpffs: text(USUAL.bpffs),
        audit: { type: "string" },
        metrics: { type: "string" },
        check: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
        version: { type: "boolean", default: false },
      },
    });
    const { check, help, version: tell, audit = null, metrics = null, policy, socket, state, bpffs } = values;
    return { policy, socket, state, bpffs, audit, metrics, check, help, version, tell };
  } catch (thrown) {
    throw new BifurcateError("E_USAGE", { what: "run bifurcated", why: messageOf(thrown) });
  }
}

/** Runs the daemon. @returns the exit status when it ends at once; null while it serves. */
export async function bifurcated(argv: readonly string[], version: string): Promise<number | null> {
  try {
    const options = read(argv, version);
    if (options.help) return say(HELP);
    if (options.tell) return say(`${version}\n`);
    if (options.check) {
      const { rules } = checkPolicy(options.policy);
      return say(`${options.policy}: ${rules.length} rules\n`);
    }
    const broker = startBroker(options);
    process.on("SIGHUP", () => {
      try {
        broker.reload();
      } catch (thrown) {
        process.stderr.write(`${wrapError(thrown, "read the policy again").render()}\n`);
      }
    });
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        broker.stop();
        process.exit(0);
      });
    }
    // Last: who reads it may send signals from now on.
    const { adopted, ended } = broker.adopted;
    ready();
    process.stderr.write(`bifurcated: serves ${options.socket}; adopted ${adopted} leases, ended ${ended}\n`);
    return null;
  } catch (thrown) {
    const error = wrapError(thrown, "start the broker");
    process.stderr.write(`${error.render()}\n`);
    return exitStatus(error);
  }
}

/** It serves all the same where that cannot be told. */
function ready(): void {
  try {
    tellSupervisor("READY=1");
  } catch (thrown) {
    process.stderr.write(`${wrapError(thrown, "tell the supervisor that the broker serves").render()}\n`);
  }
}

function say(text: string): number {
  process.stdout.write(text);
  return 0;
}
