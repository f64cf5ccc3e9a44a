// Datagrams over rxe, the kernel's software RDMA device, in one boot of the lab's guest: our port against perftest's ib_send_bw.
import { readFileSync } from "node:fs";
import { bootMachine } from "@bifurcate/lab/guest/session";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { completeMachine } from "@bifurcate/lab/guest/shared";
import { compare, interleave, type Sample } from "../rows.js";
import type { Bench } from "./bench.js";

/** What is measured: bytes of a message, and how both sides learn that something was done. */
interface Subject {
  readonly row: string;
  readonly size: number;
  readonly how: How;
  /** What is asked. */
  readonly target: number | null;
}
/** `poll`: both ends look all the time, ib_send_bw's default. `sleep`: the end that receives sleeps until it is woken. */
type How = "poll" | "sleep";

const SUBJECTS: readonly Subject[] = [
  { row: "UD 64 B", size: 64, how: "poll", target: 0.9 },
  { row: "UD 1024 B", size: 1024, how: "poll", target: 0.9 },
  { row: "UD 64 B asleep", size: 64, how: "sleep", target: null },
  { row: "UD 1024 B asleep", size: 1024, how: "sleep", target: null },
];
/** Bytes; the RDMA link then takes messages of 2048. */
const MTU = 2200;
/** Work requests of each side of a queue pair, both sides' alike. */
const RING = 512;
const [HERE, THERE] = ["192.0.2.1", "192.0.2.2"];
/** Seconds that each side runs for longer than it is counted: around the time that is. */
const AROUND = 2;
const MARGIN = 10;

/** The subjects of those rows; all when none is named. */
function chosen(rows: readonly string[] = SUBJECTS.map(({ row }) => row)): readonly Subject[] {
  return rows.map((name) => {
    const subject = SUBJECTS.find(({ row }) => row === name);
    if (subject !== undefined) return subject;
    throw new Error(`guest-verbs has no row '${name}': ${SUBJECTS.map(({ row }) => row).join(", ")}`);
  });
}

const SETUP = `
  ip netns add far && ip link add name here0 type veth peer name there0 netns far &&
  ip addr add ${HERE}/24 dev here0 && ip link set dev here0 mtu ${MTU} up &&
  ip -n far addr add ${THERE}/24 dev there0 && ip -n far link set dev there0 mtu ${MTU} up &&
  rdma link add rxe0 type rxe netdev here0 && ip netns exec far rdma link add rxe1 type rxe netdev there0`;

/** What `bifurcate open --json` prints once a second. */
interface Rates {
  readonly event: string;
  readonly seconds: number;
  readonly stats: { readonly received: number };
}

async function run(guest: Guest, argv: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await guest.run(argv);
  if (status !== 0) throw new Error(`${argv.join(" ")}: ${status}: ${stdout}${stderr}`);
  return stdout;
}

/** Starts a command and waits until it has printed `pattern`. */
async function started(
  guest: Guest,
  argv: readonly string[],
  pattern: RegExp,
): Promise<{ said: () => string; end: () => Promise<void> }> {
  const child = guest.start(argv);
  let said = "";
  const seen = new Promise<boolean>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        said += text;
        if (pattern.test(said)) resolve(true);
      });
    }
    void child.ended.then(() => resolve(false));
  });
  if (!(await seen)) throw new Error(`${argv.join(" ")} ended early: ${said}`);
  return {
    said: () => said,
    end: async () => {
      child.kill("SIGTERM");
      await child.ended;
    },
  };
}

/** Frames a second that our listening end receives from a loopback device joined to the other one. */
async function ours(guest: Guest, { size, how }: Subject, seconds: number): Promise<Sample> {
  const sink = [
    "bifurcate",
    "open",
    `verbs:rxe0,server=${HERE}:7471,ringSize=${RING}${how === "poll" ? ",busyPoll" : ""}`,
    "--do",
    "count",
    "--json",
  ];
  const spec = `verbs:rxe1,peer=${HERE}:7471,ringSize=${RING}`;
  const source = [
    "bifurcate",
    "forward",
    `loopback:length=${size}`,
    spec,
    "--seconds",
    String(seconds + AROUND),
    "--json",
  ];
  const { said, end } = await started(guest, sink, /"event":"open"/);
  try {
    await run(guest, ["ip", "netns", "exec", "far", ...source]);
  } finally {
    await end();
  }
  const rates = said()
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as Rates)
    .filter(({ event }) => event === "rates");
  const each = rates
    .slice(1)
    .map(({ seconds: length, stats }, at) => (stats.received - rates[at]!.stats.received) / length);
  const busy = each.filter((rate) => rate > 0).slice(1, -1);
  if (busy.length === 0) throw new Error(`no whole second of traffic: ${said()}`);
  const value = busy.reduce((sum, rate) => sum + rate, 0) / busy.length;
  return { value, command: `${sink.join(" ")} <- ${source.join(" ")}` };
}

/**
 * Waits until datagrams arrive at the device, and a second more; then prints the time and the count, `$1` seconds apart.
 * ib_send_bw's own figure (-D) is 0 in most of its runs here: its two ends' timers do not overlap in emulation.
 */
const ARRIVALS = `
  count=/sys/class/infiniband/rxe0/ports/1/hw_counters/rcvd_pkts
  read first < $count
  for i in $(seq 150); do read now < $count; [ $((now - first)) -gt 500 ] && break; sleep 0.2; done
  sleep 1
  read time rest < /proc/uptime; read now < $count; echo $time $now
  sleep $1
  read time rest < /proc/uptime; read now < $count; echo $time $now`;

/**
 * Messages a second from ib_send_bw that arrive at the device: what its server finds no receive for is among them, so
 * this is no less than what it receives.
 */
async function peer(guest: Guest, { size, how }: Subject, seconds: number): Promise<Sample> {
  // By duration it takes no events; it is ended long before it has sent so many.
  const long = how === "sleep" ? ["-n", "50000000"] : ["-D", String(seconds + MARGIN)];
  const words = ["ib_send_bw", "-c", "UD", "-s", String(size), ...long, "-F"];
  const depths = ["-r", String(RING), "-t", String(RING), ...(how === "sleep" ? ["-e"] : [])];
  const gid = await run(guest, [
    "sh",
    "-c",
    "for i in 0 1 2 3 4 5; do grep -q ffff /sys/class/infiniband/rxe0/ports/1/gids/$i && echo $i && break; done",
  ]);
  const both = [...words, ...depths, "-x", gid.trim()];
  const server = guest.start([...both, "-d", "rxe0"]);
  await run(guest, [
    "sh",
    "-c",
    "for i in $(seq 100); do ss -ltn | grep -q :18515 && exit 0; sleep 0.1; done; exit 1",
  ]);
  const client = [...both, "-d", "rxe1", HERE];
  const sender = guest.start(["ip", "netns", "exec", "far", ...client]);
  try {
    const said = await run(guest, ["sh", "-c", ARRIVALS, "arrivals", String(seconds)]);
    const [from = 0, before = 0, to = 0, after = 0] = said.trim().split(/\s+/).map(Number);
    const value = (after - before) / (to - from);
    if (!(value > 0)) throw new Error(`nothing of ib_send_bw arrived: ${said}`);
    return { value, command: `${both.join(" ")} -d rxe0 <- ${client.join(" ")}` };
  } finally {
    sender.kill("SIGKILL");
    server.kill("SIGKILL");
    await Promise.all([sender.ended, server.ended]);
  }
}

export const guestVerbs: Bench = {
  name: "guest-verbs",
  takes: ["row"],
  about: "datagrams over rxe in the guest: our port against ib_send_bw (perftest)",
  async run({ runs, seconds, rows, progress }) {
    const subjects = chosen(rows);
    const guest = await bootMachine(completeMachine({ kernel: "lab", iommu: "none" }), progress);
    try {
      await run(guest, ["sh", "-c", SETUP]);
      const results = [];
      for (const subject of subjects) {
        const told = async (who: string, sample: Promise<Sample>): Promise<Sample> => {
          progress(`${subject.row}, ${who}: ${(await sample).value.toFixed(0)} a second`);
          return sample;
        };
        const samples = await interleave(
          runs,
          () => told("ours", ours(guest, subject, seconds)),
          () => told("peer", peer(guest, subject, seconds)),
          (text) => progress(`${subject.row}, ${text}`),
        );
        const note = `one boot, 2 processors in software emulation, load ${readFileSync("/proc/loadavg", "utf8").split(" ")[0]} on the host at the end`;
        const row = {
          name: "guest-verbs",
          row: subject.row,
          unit: "received/s",
          better: "more",
          target: subject.target,
          note,
        } as const;
        results.push(compare(row, samples.ours, samples.peer));
      }
      return results;
    } finally {
      await guest.close();
    }
  },
};
