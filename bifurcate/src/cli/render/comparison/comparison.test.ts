// The comparison's three forms for people: complete, safe whatever a name says, and the page without anything from elsewhere.
import { describe, expect, it } from "vitest";
import { CRITERIA, KNOWN, type Comparison, type Measurement } from "@bifurcate/control";
import { renderHtml } from "./html.js";
import { renderMarkdown } from "./markdown.js";
import { renderText } from "./text.js";

const traffic = { sent: 100, answered: 100, p50: 50, p99: 400 };
const measurement: Measurement = {
  saturated: { offered: 500_000, received: 400_000, loss: 0.2, cpuPerPacket: 300, cpu: 0.12 },
  latency: { offered: 10_000, loss: 0, p50: 20, p99: 90, cpuPerPacket: 900 },
  kernel: { quiet: traffic, saturated: traffic, stopped: { sent: 100, answered: 0, p50: null, p99: null } },
  path: "af_xdp",
};
const nasty = `<script>alert("1")</script> | a\nb`;

function comparison(measured: boolean, name = "nic0"): Comparison {
  return {
    made: "2026-01-01T00:00:00.000Z",
    kernel: "6.18.0",
    virtual: true,
    processors: 2,
    load: measured ? 7.25 : 0.5,
    clock: 2000,
    iommu: true,
    card: { name, driver: "veth", queues: 1 },
    measuredOn: measured ? "a lab" : null,
    mechanisms: Object.keys(KNOWN).map((mechanism, n) => ({
      mechanism,
      ready: n < 3,
      measurement: measured && n < 3 ? measurement : null,
      cells: Object.fromEntries(
        Object.keys(CRITERIA).map((criterion) => [
          criterion,
          [
            {
              kind: n < 3 ? "measured" : "probed",
              says: `${nasty} ${mechanism} ${criterion}`,
              source: "here",
            },
          ],
        ]),
      ) as unknown as Comparison["mechanisms"][number]["cells"],
    })),
  };
}

for (const [name, render] of [
  ["text", renderText],
  ["Markdown", renderMarkdown],
  ["HTML", renderHtml],
] as const) {
  describe(name, () => {
    const page = render([comparison(true)]);

    it("has every mechanism and criterion, and what was measured", () => {
      for (const mechanism of Object.keys(KNOWN)) expect(page).toContain(mechanism);
      for (const title of Object.values(CRITERIA)) expect(page).toContain(title);
      expect(page).toContain("2 processors, load 7.3");
      expect(page).toMatch(/the machine was busy/);
      for (const figure of ["400 k", "500 k", "300 ns", "20.0 µs", "measured"])
        expect(page).toContain(figure);
    });

    it("says where nothing was measured", () => {
      expect(render([comparison(false)])).toMatch(/nothing was measured/i);
      expect(render([comparison(false)])).not.toMatch(/the machine was busy/);
    });

    it("tells several cards apart, and says what holds for all of them once", () => {
      const one = comparison(true);
      const two = comparison(true, "nic1");
      const [first] = two.mechanisms;
      const taken = { ...measurement, kernel: { none: "the interface is gone" } };
      const vm = [{ kind: "probed", says: "only nic1 says this", source: "here" }] as const;
      const other = { ...first!, measurement: taken, cells: { ...first!.cells, vm } };
      const both = render([one, { ...two, mechanisms: [other, ...two.mechanisms.slice(1)] }]);
      expect(both).toContain("nic0 (veth)");
      expect(both).toContain("nic1 (veth): only nic1 says this");
      expect(both).toMatch(/\bnone\b/);
      const said = (text: string) => both.split(text).length - 1;
      expect(said("verbs upstream")).toBe(1);
    });
  });
}

describe("Markdown", () => {
  it("keeps each row on its line, whatever is in it", () => {
    const rows = renderMarkdown([comparison(true)])
      .split("\n")
      .filter((line) => line.startsWith("| "));
    expect(rows.length).toBeGreaterThan(13 * 7);
    const said = rows.filter((row) => row.includes("alert"));
    expect(said.length).toBe(13 * 7);
    for (const row of said) {
      expect(row.match(/(?<!\\)\|/g)).toHaveLength(4);
      expect(row).not.toContain("<script");
    }
  });
});

describe("the HTML page", () => {
  const page = renderHtml([comparison(true)]);

  it("escapes what it is given", () => {
    expect(page).not.toContain("<script");
    expect(page).toContain("&lt;script&gt;");
  });

  it("stands alone: no script, nothing fetched, and a policy that forbids it", () => {
    expect(page).not.toMatch(/\b(src|href)=|url\(|@import/);
    expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
    expect(page).toContain('name="viewport"');
    expect(page).toContain("@media print");
  });

  it("has plots that say in words what they show, within their frame", () => {
    const drawings = [
      ...page.matchAll(/<svg viewBox="0 0 (\d+) (\d+)" role="img" aria-label="([^"]+)">(.*?)<\/svg>/gs),
    ];
    expect(drawings.length).toBe(4);
    for (const [, width, height, label, body] of drawings) {
      expect(label).toContain("kernel socket: ");
      for (const [, x, y, w, h] of body!.matchAll(
        /<rect class="s\d" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/g,
      )) {
        expect(Number(x) + Number(w)).toBeLessThanOrEqual(Number(width) + 2);
        expect(Number(y) + Number(h)).toBeLessThanOrEqual(Number(height));
      }
    }
  });

  it("has every figure of the table beside its heading, for narrow screens", () => {
    expect(page.match(/<td data-title="[^"]+">/g)!.length).toBeGreaterThanOrEqual(13 * 7);
  });
});
