// Two projects: `unit` runs anywhere, `netns` needs root and makes network namespaces, one file at a time.
import { defineConfig } from "vitest/config";

const ignored = ["**/node_modules/**", "**/dist/**", "target/**"];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["**/*.test.ts"],
          exclude: [...ignored, "**/*.netns.test.ts"],
          testTimeout: 60_000,
        },
      },
      {
        test: {
          name: "netns",
          include: ["**/*.netns.test.ts"],
          exclude: ignored,
          pool: "forks",
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
