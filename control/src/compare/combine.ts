// Comparisons of several cards as one: what holds for all of them is said once, the rest with the card's name.
import type { Statement } from "./cell.js";
import type { Comparison } from "./compare.js";
import { CRITERION_NAMES, type Criterion } from "./criteria.js";
import type { Measurement } from "./measurement.js";

/** A statement, and the cards that it was said of; null where it holds for all, or there is one card. */
export interface StatementOn extends Statement {
  readonly on: string | null;
}

/** One mechanism over all cards. */
export interface CombinedMechanism {
  readonly mechanism: string;
  /** Nothing known stands in its way on one of the cards at least; null where no card was looked at. */
  readonly ready: boolean | null;
  readonly cells: Readonly<Record<Criterion, readonly StatementOn[]>>;
  readonly measurements: readonly { readonly on: string | null; readonly measurement: Measurement }[];
}

/** All of it. */
export interface Combined {
  readonly parts: readonly Comparison[];
  readonly mechanisms: readonly CombinedMechanism[];
}

/** A comparison's card in words; `among`: those that it has to differ from. Null where there is nothing to tell apart. */
export function labelOf(part: Comparison, among: readonly Comparison[]): string | null {
  if (among.length < 2) return null;
  const card = part.card === null ? "no card" : `${part.card.name} (${part.card.driver})`;
  const mixed = among.some(({ iommu }) => iommu !== part.iommu);
  return mixed && !part.iommu ? `${card} without an IOMMU` : card;
}

/** Puts comparisons together, in their order. A mechanism is in it when one of them has it. */
export function combine(parts: readonly Comparison[]): Combined {
  const names = [...new Set(parts.flatMap(({ mechanisms }) => mechanisms.map(({ mechanism }) => mechanism)))];
  return {
    parts,
    mechanisms: names.map((mechanism) => {
      const rows = parts.flatMap((part) => {
        const row = part.mechanisms.find((each) => each.mechanism === mechanism);
        return row === undefined ? [] : [{ on: labelOf(part, parts), row }];
      });
      const ready = rows.map(({ row }) => row.ready).filter((each) => each !== null);
      return {
        mechanism,
        ready: ready.length === 0 ? null : ready.includes(true),
        cells: Object.fromEntries(
          CRITERION_NAMES.map((criterion) => [
            criterion,
            together(
              rows.map(({ on, row }) => ({ on, statements: row.cells[criterion] })),
              parts.length,
            ),
          ]),
        ) as Record<Criterion, StatementOn[]>,
        measurements: rows.flatMap(({ on, row }) =>
          row.measurement === null ? [] : [{ on, measurement: row.measurement }],
        ),
      };
    }),
  };
}

/** The statements of a cell: those that are equal become one, which names the cards unless it holds for all. */
function together(
  said: readonly { readonly on: string | null; readonly statements: readonly Statement[] }[],
  all: number,
): StatementOn[] {
  const found = new Map<string, { statement: Statement; on: (string | null)[] }>();
  for (const { on, statements } of said) {
    for (const statement of statements) {
      const key = JSON.stringify([statement.kind, statement.says, statement.source]);
      const one = found.get(key) ?? { statement, on: [] };
      one.on.push(on);
      found.set(key, one);
    }
  }
  return [...found.values()].map(({ statement, on }) => ({
    ...statement,
    on: on.length === all ? null : on.filter((each) => each !== null).join(", "),
  }));
}
