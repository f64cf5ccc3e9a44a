// `npm run compare:page`: the full comparison from the lab's guest, written to docs/comparison.md and docs/comparison.html.

import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Comparison } from "@bifurcate/control";
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
  options: { seconds: { type: "string", default: "2" }, from: { type: "string" } },
});
const say = (text: string): void => void process.stderr.write(`${text}\n`);

async function inGuest({ iommu, before, words }: Boot): Promise<Comparison[]> {
  say(`booting the guest (${NICS}; IOMMU: ${iommu})`);
  const guest = await bootMachine({ ...DEFAULT_MACHINE, iommu, nics: parseNics(NICS) }, say);
  try {
    await guest.run(["sh", "-c", before]);
    const command = [
      ...["bifurcate", "compare", "--run", "--no-memory-protection", "--seconds", values.seconds],
      ...[...words, "--json"],
    ];
    const child = guest.start(command, { limit: LIMIT });
    let stdout = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
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

/** `--from FILE`: writes the pages anew of what an earlier run measured. */
async function comparisons(): Promise<Comparison[]> {
  if (values.from !== undefined) {
    return (JSON.parse(await readFile(values.from, "utf8")) as { comparisons: Comparison[] }).comparisons;
  }
  const made: Comparison[] = [];
  for (const boot of BOOTS) made.push(...(await inGuest(boot)));
  return made;
}

const made = await comparisons();
const docs = new URL("../../../docs/", import.meta.url);
const write = async (name: string, text: string): Promise<void> => {
  const path = fileURLToPath(new URL(name, docs));
  await writeFile(path, text);
  say(`wrote ${path}`);
};
await write("comparison.json", `${JSON.stringify({ comparisons: made })}\n`);
await write("comparison.md", renderMarkdown(made));
await write("comparison.html", renderHtml(made));
