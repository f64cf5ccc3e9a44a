// Our own drivers against testpmd's on the same emulated cards, in the same boot of the lab's guest: io forward of 64 byte
// frames that go round between two cards wired to each other.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import type { Guest } from "@bifurcate/lab/guest/guest";
import { completeMachine } from "@bifurcate/lab/guest/shared";
import { bootMachine } from "@bifurcate/lab/guest/session";
import { compare, interleave, median, toText, type Result, type Sample } from "../rows.js";
import type { Bench, BenchOptions } from "./bench.js";

/** A pair of cards by a mechanism; `functions`: a virtual function of each instead of the cards. */
interface Subject {
  readonly row: string;
  readonly cards: readonly [string, string];
  readonly via: "vfio" | "uio_pci_generic";
  readonly functions?: true;
}

const SUBJECTS: readonly Subject[] = [
  { row: "igb over VFIO", cards: ["nic0", "nic1"], via: "vfio" },
  { row: "igb over UIO", cards: ["nic0", "nic1"], via: "uio_pci_generic" },
  { row: "e1000e over VFIO", cards: ["nic2", "nic3"], via: "vfio" },
  { row: "virtio over VFIO", cards: ["nic4", "nic5"], via: "vfio" },
  { row: "igbvf over VFIO", cards: ["nic0", "nic1"], via: "vfio", functions: true },
];

/** The subjects of those rows; all when none is named. */
function chosen(rows: readonly string[] = SUBJECTS.map(({ row }) => row)): readonly Subject[] {
  return rows.map((name) => {
    const subject = SUBJECTS.find(({ row }) => row === name);
    if (subject !== undefined) return subject;
    throw new Error(`guest-pmd has no row '${name}': ${SUBJECTS.map(({ row }) => row).join(", ")}`);
  });
}

/** Frames that are put on the wire at first, out of each card: testpmd's one burst. */
const FIRST = 32;
/** Every card and function takes it, whatever its address. */
const EVERYBODY = "ff:ff:ff:ff:ff:ff";

/** Seconds that testpmd is waited for, its figures and all of it, start and end included: emulation is slow. */
const PEER_SECONDS = 40;
const PEER_LIMIT = 180;

const PROGRAM = "/tmp/pmd_bench";

async function must(guest: Guest, script: string): Promise<string> {
  const { status, stdout, stderr } = await guest.run(["sh", "-c", script]);
  if (status !== 0) throw new Error(`${script}: status ${status}: ${stdout}${stderr}`);
  return stdout;
}

/** The addresses of a subject's two cards, bound; `undo` gives them back. */
async function bind(guest: Guest, { cards, via, functions }: Subject) {
  const whole = cards.map((name) => guest.ports.find((port) => port.name === name)!.pci);
  const folder = (address: string): string => `/sys/bus/pci/devices/${address}`;
  if (functions === true) {
    for (const [n, address] of whole.entries()) {
      await must(
        guest,
        `net=$(ls ${folder(address)}/net); ip link set dev $net up; echo 0 > ${folder(address)}/sriov_drivers_autoprobe; ` +
          `echo 1 > ${folder(address)}/sriov_numvfs; ip link set dev $net vf 0 mac 52:54:00:bf:aa:0${n} spoofchk off`,
      );
    }
  }
  const of = async (address: string): Promise<string> =>
    functions === true
      ? (await must(guest, `basename $(readlink ${folder(address)}/virtfn0)`)).trim()
      : address;
  const addresses = [await of(whole[0]!), await of(whole[1]!)] as const;
  for (const address of addresses)
    await must(guest, `bifurcate take ${address} --via ${via} --no-memory-protection --force`);
  const undo = async (): Promise<void> => {
    for (const address of addresses) await must(guest, `bifurcate give ${address}`);
    if (functions === true)
      for (const address of whole) await must(guest, `echo 0 > ${folder(address)}/sriov_numvfs`);
  };
  return { addresses, undo };
}

/** Packets a second that arrive on both cards together. */
async function ours(guest: Guest, cards: readonly string[], via: string, seconds: number): Promise<Sample> {
  const words = cards.map((address) => `${address},${via}`).join(" ");
  const command = `${PROGRAM} forward ${words} --seconds ${seconds} --first ${FIRST} --core 1 --destination ${EVERYBODY}`;
  const { pps } = JSON.parse((await must(guest, command)).trim()) as { pps: number };
  return { value: pps, command: command.replace(PROGRAM, "pmd_bench") };
}

async function peer(guest: Guest, cards: readonly string[], seconds: number): Promise<Sample> {
  const words = [
    ...["dpdk-testpmd", "--in-memory", "-m", "128", "-l", "0,1"],
    ...cards.flatMap((address) => ["-a", address]),
    ...[
      "--",
      "--forward-mode=io",
      "--auto-start",
      "--tx-first",
      "--stats-period=1",
      "--total-num-mbufs=4096",
    ],
    ...["--no-lsc-interrupt", `--eth-peer=0,${EVERYBODY}`, `--eth-peer=1,${EVERYBODY}`],
  ].join(" ");
  // With a period of statistics it runs until it is interrupted: when as many seconds were whole as are measured.
  const run = guest.start(["sh", "-c", `exec ${words} 2>&1`], { limit: PEER_LIMIT });
  let text = "";
  let both: number[] = [];
  let stopped = false;
  run.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
    // A pair of figures a second, one a port.
    const rates = [...text.matchAll(/Rx-pps:\s+(\d+)/g)].map((match) => Number(match[1]));
    const sums = rates.flatMap((rate, at) => (at % 2 === 1 ? [rate + rates[at - 1]!] : []));
    both = sums.filter((rate) => rate > 0);
    const enough = both.length >= seconds + 2 || sums.length >= PEER_SECONDS;
    if (enough && !stopped) run.kill("SIGINT");
    stopped ||= enough;
  });
  const status = await run.ended;
  // 130: by the signal itself, as some versions end.
  if (status !== 0 && status !== 130) throw new Error(`testpmd ended with status ${status}:\n${text}`);
  // The first and the last are not whole.
  const middle = both.slice(1, -1).sort((a, b) => a - b);
  if (middle.length === 0) throw new Error(`testpmd forwarded nothing:\n${text}`);
  return { value: middle[middle.length >> 1]!, command: words };
}

/**
 * What is lost of a stream of 3 seconds at half of `pps`, all of it out of the first card and into the second: so these
 * send and receive as many a second as each does when `pps` arrive on both together. `unmet` when anything is lost.
 */
async function lossAt(guest: Guest, cards: readonly string[], via: string, pps: number) {
  const words = cards.map((address) => `${address},${via}`).join(" ");
  const rate = Math.floor(pps / 2);
  const command = `${PROGRAM} rate ${words} --rate ${rate} --seconds 3 --core 1 --destination ${EVERYBODY}`;
  const { sent, lost } = JSON.parse((await must(guest, command)).trim()) as { sent: number; lost: number };
  return {
    note: `at half that rate (${rate} a second, one way) ${lost} of ${sent} frames lost`,
    ...(lost === 0 ? {} : { unmet: "nothing lost at half that rate" }),
  };
}

export const guestPmd: Bench = {
  name: "guest-pmd",
  takes: ["row"],
  about:
    "io forward between two emulated cards by our own drivers : testpmd on the same mechanism, in one boot",
  async run({ root, runs, seconds, rows, progress }: BenchOptions): Promise<Result[]> {
    const subjects = chosen(rows);
    const build =
      "build --profile guest --locked -p bifurcate-datapath --example pmd_bench --example engine_cost";
    progress(`cargo ${build}`);
    execFileSync("cargo", build.split(" "), { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
    const target = process.env["CARGO_TARGET_DIR"] ?? path.join(root, "target");
    const examples = path.join(target, "guest/examples");
    for (const line of execFileSync(path.join(examples, "engine_cost"), { encoding: "utf8" })
      .trim()
      .split("\n")) {
      const cost = JSON.parse(line) as { driver: string; per_packet: number };
      progress(
        `${cost.driver}: ${cost.per_packet} instructions for a packet in and out, on a card in memory`,
      );
    }
    const program = readFileSync(path.join(examples, "pmd_bench")).toString("base64");
    const machine = completeMachine({
      nics: "igb,igb,e1000e,e1000e,virtio,virtio",
      kernel: "lab",
      iommu: "intel",
    });
    const guest = await bootMachine(machine, progress);
    try {
      await guest.run(["sh", "-c", `base64 -d > ${PROGRAM} && chmod +x ${PROGRAM}`], { input: program });
      await must(guest, "echo 160 > /proc/sys/vm/nr_hugepages");
      const results: Result[] = [];
      for (const subject of subjects) {
        const { row, via } = subject;
        const { addresses, undo } = await bind(guest, subject);
        const both = await interleave(
          runs,
          () => ours(guest, addresses, via, seconds),
          () => peer(guest, addresses, seconds),
          (text) => progress(`${row}: ${text}`),
        );
        const pps = median(both.ours.map((sample) => sample.value));
        const loss = await lossAt(guest, addresses, via, pps);
        const of = {
          name: "guest-pmd",
          row,
          unit: "packets/s",
          better: "more",
          target: 1.0,
          ...loss,
        } as const;
        const result = compare(of, both.ours, both.peer);
        results.push(result);
        // At once: what comes after it may fail.
        progress(toText(result));
        await undo();
      }
      return results;
    } finally {
      await guest.close();
    }
  },
};
