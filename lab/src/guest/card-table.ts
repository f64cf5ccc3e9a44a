// The table of docs/direct-access.md: what the guest tests saw of each driver by each mechanism.

/** What a guest test saw of one driver by one mechanism. */
export interface CardSeen {
  readonly driver: string;
  readonly via: string;
  /** The kernel driver that the card was bound to; null when it was not. */
  readonly bound: string | null;
  /** Echo requests answered, of 3. */
  readonly polled: number;
  /** The same asleep, and the interrupts that came; null where not tried. */
  readonly slept: { readonly answered: number; readonly interrupts: number } | null;
  readonly given: boolean;
}

const BEGIN = "<!-- cards: begin -->";
const END = "<!-- cards: end -->";
const ALL = 3;

/** Lines of one driver by one mechanism stand as here, whatever order the tests ran in; what is new comes last. */
const MECHANISMS = ["vfio", "iommufd", "vfio-noiommu", "uio_pci_generic", "igb_uio"];
const DRIVERS = ["igb", "e1000e", "virtio", "igbvf"];

function place({ driver, via }: CardSeen): number {
  const [row, column] = [MECHANISMS.indexOf(via) >>> 0, DRIVERS.indexOf(driver) >>> 0];
  return row * (DRIVERS.length + 1) + Math.min(column, DRIVERS.length);
}

/** What two tests saw of the same: no more than both did. */
function both(a: CardSeen, b: CardSeen): CardSeen {
  const slept =
    a.slept === null || b.slept === null
      ? (a.slept ?? b.slept)
      : {
          answered: Math.min(a.slept.answered, b.slept.answered),
          interrupts: Math.min(a.slept.interrupts, b.slept.interrupts),
        };
  return {
    ...a,
    bound: a.bound === b.bound ? a.bound : null,
    polled: Math.min(a.polled, b.polled),
    slept,
    given: a.given && b.given,
  };
}

/** The table in Markdown, a row a driver and mechanism. */
export function cardTable(seen: readonly CardSeen[]): string {
  const titles = ["driver", "`via`", "bound to", "frames both ways", "interrupts", "given back"];
  const yes = (is: boolean): string => (is ? "yes" : "no");
  const lines = new Map<string, CardSeen>();
  for (const one of seen) {
    const key = `${one.driver} ${one.via}`;
    const before = lines.get(key);
    lines.set(key, before === undefined ? one : both(before, one));
  }
  const sorted = [...lines.values()].sort((a, b) => place(a) - place(b));
  const rows = sorted.map(({ driver, via, bound, polled, slept, given }) => [
    `\`${driver}\``,
    `\`${via}\``,
    bound === null ? "no" : `\`${bound}\``,
    yes(polled === ALL),
    slept === null ? "not tried" : yes(slept.answered === ALL && slept.interrupts > 0),
    yes(given),
  ]);
  const width = titles.map((title, c) => Math.max(title.length, ...rows.map((row) => row[c]!.length)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, c) => cell.padEnd(width[c]!)).join(" | ")} |`;
  return [line(titles), line(width.map((n) => "-".repeat(n))), ...rows.map(line)].join("\n");
}

/** A page with that table in the place of the one before. */
export function withTable(page: string, table: string): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`the page has no ${BEGIN} ... ${END}`);
  return `${page.slice(0, begin)}${BEGIN}\n\n${table}\n\n${page.slice(end)}`;
}
