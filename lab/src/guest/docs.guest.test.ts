// The blocks of docs/lab.md that are typed in a guest's shell, run there as they stand.
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import type { Guest } from "./guest.js";
import { BOOT_LIMIT, sharedGuest } from "./shared.js";
import { TABLE_PAGE } from "./table.js";

const page = readFileSync(TABLE_PAGE, "utf8");
const blocks = [...page.matchAll(/\n\n([^\n]+)\n\n```sh guest\n([\s\S]*?)```/g)].map(
  ([, title, text]) => [title!, text!] as const,
);

describe("docs/lab.md", () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await sharedGuest({ nics: "igb,e1000e,virtio,vmxnet3", kernel: "lab", iommu: "intel" });
  }, BOOT_LIMIT);

  it("has blocks for the guest", () => expect(blocks.length).toBeGreaterThan(5));

  for (const [title, block] of blocks) {
    it(title.replace(/:$/, ""), async () => {
      // What a block that fails has started in the background would keep its output open.
      const script = `trap 'kill $(jobs -p) 2> /dev/null || :; wait' EXIT\n${block}`;
      const { status, stdout, stderr } = await guest.run(["bash", "-xeuo", "pipefail", "-c", script], {
        limit: 300,
      });
      expect(status, `${stdout}\n${stderr}`).toBe(0);
    });
  }
});
