// The form of a policy file: comments, `[section]` lines and `key = value` lines, each remembered with its number.

/** Something wrong in a file, at a line that counts from 1. */
export class LineError extends Error {
  override readonly name = "LineError";

  constructor(
    readonly line: number,
    why: string,
  ) {
    super(why);
  }
}

/** One `key = value`. */
export interface Setting {
  readonly key: string;
  readonly value: string;
  readonly line: number;
}

/** A section with its settings, in the order of the file. */
export interface Section {
  readonly name: string;
  readonly line: number;
  readonly settings: readonly Setting[];
}

const SECTION = /^\[([^\]]*)\]$/;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

/** Splits a file into what stands before the first section, and its sections. @throws LineError */
export function readLines(text: string): { readonly head: readonly Setting[]; readonly sections: Section[] } {
  const head: Setting[] = [];
  const sections: (Section & { settings: Setting[] })[] = [];
  for (const [at, raw] of text.split(/\r?\n/).entries()) {
    const line = at + 1;
    const content = raw.replace(/(^|\s)#.*$/, "").trim();
    if (content === "") continue;
    const section = SECTION.exec(content);
    if (section !== null) {
      const name = section[1]!.trim();
      if (!NAME.test(name)) {
        throw new LineError(line, `'${name}' is no name of a rule: letters, digits, '_', '.' and '-'`);
      }
      const before = sections.find((each) => each.name === name);
      if (before !== undefined) throw new LineError(line, `[${name}] stands in line ${before.line} already`);
      sections.push({ name, line, settings: [] });
      continue;
    }
    const equals = content.indexOf("=");
    if (equals === -1)
      throw new LineError(line, `'${content}' is neither a [rule], nor 'key = value', nor a # comment`);
    const setting = { key: content.slice(0, equals).trim(), value: content.slice(equals + 1).trim(), line };
    if (setting.key === "") throw new LineError(line, "there is no word before '='");
    if (setting.value === "") throw new LineError(line, `'${setting.key}' has no value`);
    (sections.at(-1)?.settings ?? head).push(setting);
  }
  return { head, sections };
}
