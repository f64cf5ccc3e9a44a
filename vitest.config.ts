// Three projects: `unit` runs anywhere; `netns` needs root and makes network namespaces, one file at a time; `guest`
// boots QEMU, in two processes (a guest's work is mostly one processor's), each of which keeps its guest for the next
// test file that needs the same machine.
import { readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const ignored = ["**/node_modules/**", "**/dist/**", "target/**"];

/** The machine that a guest test asks for, as its source has it: files with the same stand side by side. */
function machineOf(specification: TestSpecification): string {
  return /sharedGuest\((.*?)\)/s.exec(readFileSync(specification.moduleId, "utf8"))?.[1] ?? "";
}

class ByMachine extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isGuest = (file: TestSpecification): boolean => file.project.name === "guest";
    const guests = files
      .filter(isGuest)
      .map((file) => [`${machineOf(file)} ${file.moduleId}`, file] as const);
    guests.sort(([a], [b]) => (a < b ? -1 : 1));
    const others = await super.sort(files.filter((file) => !isGuest(file)));
    return [...others, ...guests.map(([, file]) => file)];
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: ByMachine },
    projects: [
      {
        test: {
          name: "unit",
          include: ["**/*.test.ts"],
          exclude: [...ignored, "**/*.netns.test.ts", "**/*.guest.test.ts"],
          testTimeout: 200_000,
          hookTimeout: 200_000,
        },
      },
      {
        test: {
          name: "netns",
          include: ["**/*.netns.test.ts"],
          exclude: ignored,
          pool: "forks",
          fileParallelism: false,
          sequence: { groupOrder: 1 },
          // Far more than any takes: a machine may be slow, and stand still for seconds.
          testTimeout: 400_000,
          hookTimeout: 400_000,
        },
      },
      {
        test: {
          name: "guest",
          include: ["**/*.guest.test.ts"],
          exclude: ignored,
          pool: "forks",
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
          isolate: false,
          // Beyond the limits that the tests set for what runs in a guest: those end it, and show its console.
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
});
