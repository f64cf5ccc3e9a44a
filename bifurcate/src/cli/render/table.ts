// A table of text: columns as wide as their widest cell, numbers to the right.

/** A column's heading, and on which side its cells stand. */
export interface Column {
  readonly title: string;
  readonly right?: boolean;
}

/** Renders rows under their headings; no blanks at the ends of lines. */
export function renderTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((column, c) =>
    Math.max(column.title.length, ...rows.map((row) => (row[c] ?? "").length)),
  );
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ right }, c) =>
        right === true ? (cells[c] ?? "").padStart(widths[c]!) : (cells[c] ?? "").padEnd(widths[c]!),
      )
      .join("  ")
      .trimEnd();
  return [line(columns.map((column) => column.title)), ...rows.map(line)].map((text) => `${text}\n`).join("");
}

/** 1234567 as "1,234,567", the same in every locale. */
export function grouped(number: number): string {
  return Math.round(number)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Bytes a second as "3.6 MB/s". */
export function byteRate(bytes: number): string {
  const units = ["B/s", "kB/s", "MB/s", "GB/s"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
