// Leases: a lease against the same path in process as root, a lease port against a socket on the card itself, and the
// time that a grant takes, step by step; how long the flow of a client that is killed is nobody's.
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { LabCard } from "@bifurcate/lab";
import { Child } from "../child.js";
import { buildExamples, runJson } from "../native.js";
import { compare, median, medianBounds, type Result } from "../rows.js";
import { steadily, type Side } from "../steady.js";
import { onWires } from "../wire.js";
import type { Bench, BenchOptions } from "./bench.js";

const NOBODY = 65_534;
/** Leases whose steps are timed. */
const GRANTS = 50;
/** Clients that are killed. */
const DEATHS = 15;
/** Ten datagrams a millisecond to port 53 of the address that it is given. */
const DATAGRAMS = `
  const socket = require("node:dgram").createSocket("udp4");
  socket.on("error", () => undefined);
  const ten = () => { for (let i = 0; i < 10; i++) socket.send("datagram", 53, process.argv[1], () => undefined); };
  socket.bind(() => { setInterval(ten, 1); console.log("sends"); });
`;

/** The command before a client's: another user, and no capability. */
const POWERLESS = [
  ...["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"],
  ...["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"],
];

/** A broker for the cards' namespace in a folder of its own; all gone when the work ends. */
async function withBroker<T>(
  cards: readonly LabCard[],
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
    cards
      .map(
        ({ ifname }) =>
          `[${ifname}]\nuser = 0, ${NOBODY}\ndevice = ${ifname}\nflow = udp dst port 53\ntransmit = own\n`,
      )
      .join(""),
  );
  const broker = new Child("ip", [
    ...["netns", "exec", cards[0]!.netns, "node", path.join(root, "bifurcate", "bin", "bifurcated.mjs")],
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

/** Kills clients of leases while datagrams come, and says when the kernel has the first of them. */
async function deaths(
  card: LabCard,
  client: readonly string[],
  subject: string,
  root: string,
): Promise<string> {
  const inside = ["ip", "netns", "exec", card.netns];
  const [ip, ...rest] = ["ip", "netns", "exec", card.peer.netns, "node", "-e", DATAGRAMS, card.v4];
  const sender = new Child(ip!, rest);
  try {
    await sender.saw(/sends/);
    const kill = [...inside, "node", subject, `${DEATHS}`, ...client];
    const { result } = await runJson<{ median: number; least: number; most: number }>(kill, root);
    const ms = (of: number): string => `${of.toFixed(1)} ms`;
    return `median ${ms(result.median)}, ${ms(result.least)} to ${ms(result.most)}, ${DEATHS} clients`;
  } finally {
    await sender.end();
  }
}

function words(steps: readonly (readonly [string, number])[]): string {
  return steps.map(([name, ms]) => `${name} ${ms.toFixed(2)} ms`).join(", ");
}

export const broker: Bench = {
  name: "broker",
  about:
    "a lease : the same path in process as root; a lease port : a socket on the card; the time of a grant, and of a killed client's end",
  async run(options: BenchOptions): Promise<Result[]> {
    const { root, seconds, runs, progress } = options;
    const examples = await buildExamples(root, progress);
    const subject = (name: string): string => path.join(root, "bench", "dist", "subjects", name);
    return onWires("bbroker", 2, ([card, other]) =>
      withBroker([card!, other!], root, async (folder, socket) => {
        const inside = ["ip", "netns", "exec", card!.netns];
        const named = ["env", `BIFURCATE_BROKER=${socket}`];
        const side = (on: LabCard, before: readonly string[], kind: string): Side => ({
          card: on,
          command: [...inside, ...before, "node", subject("steady.js"), kind, on.ifname, folder],
        });
        // Each on a card of its own, since one card is one broker's: two ends of the same kind of wire.
        const lease = side(card!, [...named, ...POWERLESS], "lease");
        const against = async (row: string, peer: Side, target: number | null): Promise<Result> => {
          const both = await steadily({ runs, seconds, examples }, lease, peer, (text) =>
            progress(`broker/${row}: ${text}`),
          );
          const [low, high] = medianBounds(both.ours.map(({ value }, at) => value / both.peer[at]!.value));
          const note = `pairs of 250 ms, in turns; the median lies between ${low.toFixed(3)} and ${high.toFixed(3)} with 95 % confidence`;
          const of = { name: "broker", row, unit: "packets/s", better: "more", target, note } as const;
          return compare(of, both.ours, both.peer);
        };
        const results = [
          await against("throughput", side(other!, [], "in-process"), 0.98),
          await against("port", side(other!, [], "direct"), null),
        ];
        progress("broker/grant");
        const grant = [
          ...inside,
          ...named,
          ...POWERLESS,
          "node",
          subject("lease-grant.js"),
          card!.ifname,
          `${GRANTS}`,
        ];
        const { result } = await runJson<Record<string, number>>(grant, root);
        progress(`a client's steps: ${words(Object.entries(result))}`);
        progress(`the broker's steps of a grant: ${brokerSteps(folder)}`);
        progress("broker/death");
        const client = [...named, ...POWERLESS, "node", subject("steady.js"), "lease", card!.ifname];
        const took = await deaths(card!, client, subject("lease-death.js"), root);
        progress(`from kill -9 of a client to the first datagram in the kernel: ${took}`);
        return results;
      }),
    );
  },
};
