// Leases: a lease against the same path in process as root, a lease port against a socket on the card itself, and the
// time that a grant takes, step by step.
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { LabCard } from "@bifurcate/lab";
import { Child } from "../child.js";
import { buildExamples, runJson } from "../native.js";
import { measured, type Measured } from "../receive.js";
import { compare, interleave, median, type Result } from "../rows.js";
import { onWire, whileSending } from "../wire.js";
import type { Bench, BenchOptions } from "./bench.js";

const NOBODY = 65_534;
/** Leases whose steps are timed. */
const GRANTS = 50;

/** The command before a client's: another user, and no capability. */
const POWERLESS = [
  ...["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"],
  ...["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"],
];

/** A broker for the card's namespace in a folder of its own; all gone when the work ends. */
async function withBroker<T>(
  card: LabCard,
  root: string,
  work: (folder: string, socket: string) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(path.join(tmpdir(), "bifurcate-bench-"));
  const [bpf, policy, socket] = ["bpf", "policy", "broker.sock"].map((name) => path.join(folder, name)) as [
    string,
    string,
    string,
  ];
  chmodSync(folder, 0o755);
  mkdirSync(bpf);
  execFileSync("mount", ["-t", "bpf", "bpf", bpf]);
  writeFileSync(
    policy,
    `[bench]\nuser = 0, ${NOBODY}\ndevice = ${card.ifname}\nflow = udp dst port 53\ntransmit = own\n`,
  );
  const broker = new Child("ip", [
    ...["netns", "exec", card.netns, "node", path.join(root, "bifurcate", "bin", "bifurcated.mjs")],
    ...["--policy", policy, "--socket", socket, "--state", path.join(folder, "state")],
    ...["--bpffs", path.join(bpf, "broker"), "--audit", path.join(folder, "audit.jsonl")],
  ]);
  try {
    await broker.saw(/serves/);
    return await work(folder, socket);
  } finally {
    await broker.end();
    execFileSync("umount", [bpf]);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Medians of the steps of the grants in the audit log. */
function brokerSteps(folder: string): string {
  const took = readFileSync(path.join(folder, "audit.jsonl"), "utf8")
    .split("\n")
    .filter((line) => line.includes('"event":"lease"'))
    .map((line) => (JSON.parse(line) as { took?: Record<string, number> }).took ?? {});
  const names = [...new Set(took.flatMap((each) => Object.keys(each)))];
  return words(names.map((name) => [name, median(took.flatMap((each) => each[name] ?? []))] as const));
}

function words(steps: readonly (readonly [string, number])[]): string {
  return steps.map(([name, ms]) => `${name} ${ms.toFixed(2)} ms`).join(", ");
}

export const broker: Bench = {
  name: "broker",
  about:
    "a lease : the same path in process as root; a lease port : a socket on the card; the time of a grant",
  async run(options: BenchOptions): Promise<Result[]> {
    const { root, seconds, runs, progress } = options;
    const examples = await buildExamples(root, progress);
    const subject = (name: string): string => path.join(root, "bench", "dist", "subjects", name);
    return onWire("bbroker", (card) =>
      withBroker(card, root, async (folder, socket) => {
        const sending = { examples, card, seconds: seconds + 10 };
        const inside = ["ip", "netns", "exec", card.netns];
        const named = ["env", `BIFURCATE_BROKER=${socket}`];
        const side = (command: readonly string[]) => (): Promise<Measured> =>
          whileSending(sending, () => measured(command, root));
        const lease = [
          ...inside,
          ...named,
          ...POWERLESS,
          "node",
          subject("lease.js"),
          card.ifname,
          `${seconds}`,
        ];
        const inProcess = [...inside, "node", subject("lease.js"), card.ifname, `${seconds}`, folder];
        const direct = ["node", subject("native-split.js"), card.netns, card.ifname, "af_xdp", `${seconds}`];
        const rate = (one: Measured) => ({ value: one.perSecond, command: one.command });
        const against = async (
          row: string,
          peer: readonly string[],
          target: number | null,
        ): Promise<Result> => {
          const both = await interleave(runs, side(lease), side(peer), (text) =>
            progress(`broker/${row}: ${text}`),
          );
          const of = { name: "broker", row, unit: "packets/s", better: "more", target } as const;
          return compare(of, both.ours.map(rate), both.peer.map(rate));
        };
        const results = [await against("throughput", inProcess, 0.98), await against("port", direct, null)];
        progress("broker/grant");
        const grant = [
          ...inside,
          ...named,
          ...POWERLESS,
          "node",
          subject("lease-grant.js"),
          card.ifname,
          `${GRANTS}`,
        ];
        const { result } = await runJson<Record<string, number>>(grant, root);
        progress(`a client's steps: ${words(Object.entries(result))}`);
        progress(`the broker's steps of a grant: ${brokerSteps(folder)}`);
        return results;
      }),
    );
  },
};
