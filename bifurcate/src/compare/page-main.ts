// `npm run compare:page`: the full comparison from the lab's guest, written to docs/comparison.md and docs/comparison.html.

import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { availableParallelism, loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Comparison } from "@bifurcate/control/compare/compare";
import { igbUioModule } from "@bifurcate/lab/guest/igb-uio";
import { DEFAULT_MACHINE, parseNics, type Iommu } from "@bifurcate/lab/guest/machine";
import { bootMachine } from "@bifurcate/lab/guest/session";
import { renderHtml } from "../cli/render/comparison/html.js";
import { renderMarkdown } from "../cli/render/comparison/markdown.js";

/** One boot of the guest: what the mechanisms need of it first, and the command. */
interface Boot {
  readonly iommu: Iommu;
  readonly before: string;
  readonly words: readonly string[];
}

const NICS = "igb,e1000e,virtio";
const PAGES = "echo 128 > /proc/sys/vm/nr_hugepages; modprobe -aq vfio-pci uio_pci_generic; true";
/** No kernel brings igb_uio: the module comes by stdin. */
const IGB_UIO = "base64 -d > /tmp/igb_uio.ko && insmod /tmp/igb_uio.ko";

/** VFIO without an IOMMU is for machines that have none, so it needs a boot of its own. */
const BOOTS: readonly Boot[] = [
  { iommu: "intel", before: PAGES, words: [] },
  {
    iommu: "none",
    before: `${PAGES}; echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode`,
    words: ["--only", "VFIO without IOMMU"],
  },
];

/** A comparison takes this long at most, in seconds. */
const LIMIT = 3600;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "3" },
    /** What the slowest mechanism can take in software emulation. */
    rate: { type: "string", default: "500" },
    boot: { type: "string", multiple: true },
    json: { type: "string" },
    from: { type: "string", multiple: true },
  },
});
const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** What was measured, and what the machine that emulated the guest was busy with meanwhile: its least and greatest load. */
interface Made {
  readonly comparisons: readonly Comparison[];
  readonly processors: number;
  readonly load: readonly [number, number];
}

/** The load whenever something new began to be measured. */
const loads: number[] = [];
function noteLoad(): void {
  loads.push(loadavg()[0] ?? 0);
}

async function inGuest({ iommu, before, words }: Boot): Promise<Comparison[]> {
  say(`booting the guest (${NICS}; IOMMU: ${iommu})`);
  const guest = await bootMachine({ ...DEFAULT_MACHINE, iommu, nics: parseNics(NICS) }, say);
  try {
    await guest.run(["sh", "-c", before]);
    const input = (await readFile(await igbUioModule(say))).toString("base64");
    const { status: loaded, stderr: why } = await guest.run(["sh", "-c", IGB_UIO], { input });
    if (loaded !== 0) throw new Error(`igb_uio was not loaded: ${why}`);
    const command = [
      ...[
        "bifurcate",
        "compare",
        "--run",
        "--no-memory-protection",
        "--seconds",
        values.seconds,
        "--rate",
        values.rate,
      ],
      ...[...words, "--json"],
    ];
    const child = guest.start(command, { limit: LIMIT });
    let stdout = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
      noteLoad();
      process.stderr.write(text);
    });
    child.stdin.end();
    const status = await child.ended;
    if (status !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
    return (JSON.parse(stdout) as { comparisons: Comparison[] }).comparisons;
  } finally {
    await guest.close();
  }
}

/** All boots, or those that --boot names; `--from FILE`: no boot, but what `--json FILE` wrote in earlier runs. */
async function make(): Promise<Made> {
  if (values.from !== undefined) {
    const parts: Made[] = [];
    for (const file of values.from) parts.push(JSON.parse(await readFile(file, "utf8")) as Made);
    const load = parts.flatMap((part) => part.load);
    return {
      ...parts[0]!,
      comparisons: parts.flatMap(({ comparisons }) => comparisons),
      load: [Math.min(...load), Math.max(...load)],
    };
  }
  noteLoad();
  const comparisons: Comparison[] = [];
  for (const boot of BOOTS) {
    if (values.boot?.includes(boot.iommu) ?? true) comparisons.push(...(await inGuest(boot)));
  }
  return {
    comparisons,
    processors: availableParallelism(),
    load: [Math.min(...loads), Math.max(...loads)],
  };
}

const made = await make();
if (values.json !== undefined) {
  await writeFile(values.json, JSON.stringify(made));
} else {
  const without = made.comparisons.some(({ iommu }) => !iommu);
  const iommus = `once with an IOMMU${without ? " and once without" : "; the boot without one was left out"}`;
  const preface =
    `Made by \`npm run compare:page\`: \`bifurcate compare --run\` in the lab's guest (${NICS}, each with a virtio card at the far ` +
    `end of its wire), which QEMU emulates in software, ${iommus}. The machine that emulated it had ` +
    `${made.processors} processors and a load of ${made.load.map((each) => each.toFixed(1)).join(" to ")} meanwhile, 2 of it by the ` +
    "guest itself. Figures of an emulation compare with each other, and with nothing else: the cost of a card's registers, of its " +
    "interrupts and of memory is QEMU's; and what else the machine was busy with slows some of them more than others.";
  const docs = new URL("../../../docs/", import.meta.url);
  const page = fileURLToPath(new URL("comparison.md", docs));
  await writeFile(page, renderMarkdown(made.comparisons, preface));
  await writeFile(
    fileURLToPath(new URL("comparison.html", docs)),
    renderHtml(made.comparisons, preface.replaceAll("`", "")),
  );
  execFileSync(fileURLToPath(new URL("../../../node_modules/.bin/prettier", import.meta.url)), [
    "--write",
    page,
  ]);
  say(`wrote ${page}, and the page that stands alone beside it`);
}
