// bifurcated from its options to a serving broker: the checks before it begins, the lock, adoption, signals.
import { chmodSync, existsSync, mkdirSync, rmSync, statfsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { BifurcateError, errnoOf, messageOf, wrapError } from "../errors.js";
import { stateDirectory } from "../transaction/journal.js";
import { auditFile, auditTo, type Audit } from "./audit.js";
import { Leases } from "./leases.js";
import { brokerKernel, locals, type BrokerKernel, type Locals } from "./machine.js";
import { checkMetricsPlace, metricsPlace, metricsText, serveMetrics, type MetricsPlace } from "./metrics.js";
import { checkMeans, readPolicy, type Policy } from "./policy.js";
import { Server } from "./server.js";
import { lockState } from "./state-lock.js";

/** What `bifurcated` is told. */
export interface BrokerOptions {
  readonly policy: string;
  readonly socket: string;
  readonly state: string;
  readonly bpffs: string;
  /** A file; null: stdout. */
  readonly audit: string | null;
  /** Where to serve metrics; null: nowhere. */
  readonly metrics: string | null;
  readonly version: string;
}

/** Where things are when nothing else is said: the last two as `bifurcate take --for-broker` prepares them. */
export const USUAL = {
  policy: "/etc/bifurcate/policy",
  state: "/run/bifurcate",
  bpffs: "/run/bifurcate-bpf/names",
} as const;

/** The capabilities it needs, and that are enough (capabilities(7)). */
export const NEEDED = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_IPC_LOCK"] as const;
/** BPF_FS_MAGIC (include/uapi/linux/magic.h). */
const BPF_FS = 0xcafe4a11;

/** A broker that serves. */
export interface RunningBroker {
  readonly leases: Leases;
  readonly server: Server;
  readonly adopted: { readonly adopted: number; readonly ended: number };
  /** Reads the policy again; leases that were given go on. @throws E_POLICY: the old one stays. */
  reload(): void;
  /** Ends; the leases stay for the next broker. */
  stop(): void;
}

function lacking(kernel: BrokerKernel): string[] {
  const has = new Set(kernel.capabilities());
  return NEEDED.filter((each) => !has.has(each));
}

function checkCapabilities(kernel: BrokerKernel): void {
  const missing = lacking(kernel);
  if (missing.length === 0) return;
  throw new BifurcateError("E_NOT_PRIVILEGED", {
    what: "start the broker",
    why: `the process lacks ${missing.join(", ")}`,
    next: "Start it by its systemd unit, or as root.",
    data: { missing },
  });
}

/** A policy, and that this broker can do what it says. @throws E_POLICY */
function readMeant(path: string, kernel: BrokerKernel): Policy {
  const policy = readPolicy(path);
  checkMeans(policy, kernel.capabilities());
  return policy;
}

/**
 * Checks a policy as a broker of this process's rights would; one without a broker's rights, as a user has none, checks
 * what it says alone. @throws E_POLICY
 */
export function checkPolicy(path: string): Policy {
  const kernel = brokerKernel();
  return lacking(kernel).length === 0 ? readMeant(path, kernel) : readPolicy(path);
}

function checkBpffs(path: string): void {
  const what = `keep names of maps and links in ${path}`;
  const next = `As root: bifurcate take --for-broker, which mounts one and makes the folder ${USUAL.bpffs}; or name another by --bpffs.`;
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (thrown) {
    throw new BifurcateError("E_SYSTEM", { what, why: messageOf(thrown), next, cause: thrown });
  }
  if (Number(statfsSync(path).type) >>> 0 === BPF_FS) return;
  throw new BifurcateError("E_SYSTEM", { what, why: "it is not in a BPF file system", next });
}

/**
 * Makes sure that the socket is nobody's: a dead broker's is removed. One of a broker that lives is E_BROKER_RUNNING, also
 * where that one is stopped and as many wait for it as may (EAGAIN).
 */
function takeSocket(machine: Locals, path: string): void {
  if (!existsSync(path)) return;
  try {
    machine.connect(path).close();
  } catch (thrown) {
    // Nobody listens: connect(2).
    if (errnoOf(thrown) === "ECONNREFUSED") return rmSync(path, { force: true });
    if (errnoOf(thrown) === "ENOENT") return;
    throw running(path, `somebody listens there, and does not answer: ${messageOf(thrown)}`, thrown);
  }
  throw running(path, "a broker answers there");
}

function running(path: string, why: string, cause?: unknown): BifurcateError {
  return new BifurcateError("E_BROKER_RUNNING", { what: `listen at ${path}`, why, cause });
}

/**
 * Starts a broker for the network namespace of this process.
 * @throws E_NOT_PRIVILEGED, E_POLICY, E_BROKER_RUNNING, E_SYSTEM.
 */
export function startBroker(options: BrokerOptions): RunningBroker {
  const kernel = brokerKernel();
  const machine = locals();
  checkCapabilities(kernel);
  const place = options.metrics === null ? null : metricsPlace(options.metrics);
  if (place !== null) {
    checkMetricsPlace(place, machine.connect);
    if ("path" in place && resolve(place.path) === resolve(options.socket)) {
      throw new BifurcateError("E_BAD_OPTION", {
        what: `serve metrics at ${place.path}`,
        why: "clients connect there",
        next: "Name another path.",
      });
    }
  }
  const policy = readMeant(options.policy, kernel);
  checkBpffs(options.bpffs);
  // Clients pass through its folder, which may be that of the state too.
  mkdirSync(dirname(options.socket), { recursive: true, mode: 0o755 });
  // Before anything of another broker is touched, its socket's file among it.
  const lock = lockState(machine, options.state, options.socket);
  try {
    const running = serve(options, { kernel, machine, place, policy });
    const stop = (): void => {
      running.stop();
      lock.close();
    };
    return { ...running, stop };
  } catch (thrown) {
    lock.close();
    throw thrown;
  }
}

/** What was found well before a broker begins. */
interface Checked {
  readonly kernel: BrokerKernel;
  readonly machine: Locals;
  readonly place: MetricsPlace | null;
  readonly policy: Policy;
}

function serve(options: BrokerOptions, { kernel, machine, place, policy }: Checked): RunningBroker {
  takeSocket(machine, options.socket);
  const audit: Audit = options.audit === null ? auditTo(1) : auditFile(options.audit);
  const netns = kernel.openNetns(null);
  const places = {
    state: join(options.state, "leases"),
    bpffs: options.bpffs,
    splits: stateDirectory(),
  };
  const leases = new Leases(kernel, netns, machine, places, policy, audit);
  const adopted = leases.adopt();
  const watch = netns.watchLinks(({ type, ifindex, name }) => {
    if (type === "deleted" || type === "moved") leases.lost(ifindex, name);
  });
  const server = new Server(machine, leases, audit, { broker: options.version, netns: netns.inode });
  try {
    server.listen(options.socket);
    // Who may lease is the policy's to say, not the file's.
    chmodSync(options.socket, 0o666);
  } catch (thrown) {
    throw wrapError(thrown, `listen at ${options.socket}`);
  }
  const failed = (why: string): void => audit.write({ event: "metrics", outcome: "failed", why });
  const metrics =
    place === null ? null : serveMetrics(place, () => metricsText(leases, server), failed, machine.connect);
  audit.write({ event: "start", outcome: "done", pid: process.pid, ...adopted });
  return {
    leases,
    server,
    adopted,
    reload: () => {
      try {
        leases.policy = readMeant(options.policy, kernel);
      } catch (thrown) {
        const { code, message } = wrapError(thrown, "read the policy again");
        audit.write({ event: "reload", outcome: code, why: message });
        throw thrown;
      }
      audit.write({ event: "reload", outcome: "done" });
    },
    stop: () => {
      watch.close();
      metrics?.close();
      server.close();
      leases.leave();
      rmSync(options.socket, { force: true });
      audit.write({ event: "stop", outcome: "done", pid: process.pid });
      audit.close();
      netns.close();
    },
  };
}
