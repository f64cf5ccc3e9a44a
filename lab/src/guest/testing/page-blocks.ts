// For tests: the blocks of docs/lab.md that are typed in a guest's shell, run as they stand.

import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import type { Guest } from "../guest.js";
import { TABLE_PAGE } from "../table.js";

/** The longest that a block may take, in seconds. */
const BLOCK_LIMIT = 300;

/**
 * A test for each block of the page.
 * @param kind What stands after `sh` at its fence, e.g. "guest".
 * @param guest Gives the guest when the tests run.
 */
export function testBlocks(kind: string, guest: () => Guest): void {
  const page = readFileSync(TABLE_PAGE, "utf8");
  const blocks = [...page.matchAll(/\n\n([^\n]+)\n\n```sh (guest[^\n]*)\n([\s\S]*?)```/g)]
    .filter(([, , of]) => of === kind)
    .map(([, title, , text]) => [title!, text!] as const);

  it("has blocks for the guest", () => expect(blocks.length).toBeGreaterThan(0));

  for (const [title, block] of blocks) {
    it(
      title.replace(/:$/, ""),
      async () => {
        // What a block that fails has started in the background would keep its output open.
        const script = `trap 'kill $(jobs -p) 2> /dev/null || :; wait' EXIT\n${block}`;
        const words = ["bash", "-xeuo", "pipefail", "-c", script];
        const { status, stdout, stderr } = await guest().run(words, { limit: BLOCK_LIMIT });
        expect(status, `${stdout}\n${stderr}`).toBe(0);
      },
      // So that it is the guest's console that is shown.
      2 * BLOCK_LIMIT * 1000,
    );
  }
}
