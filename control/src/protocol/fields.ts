// Reading fields out of what a peer sent: each of the right type and within its bounds, or an error that names it.

/** A message that is not what PROTOCOL.md says. */
export class BadMessage extends Error {
  override readonly name = "BadMessage";
}

/** A JSON object whose fields are read one by one. */
export class Fields {
  constructor(
    private readonly from: Readonly<Record<string, unknown>>,
    private readonly where: string,
  ) {}

  /** Reads an object. @throws BadMessage */
  static of(value: unknown, where: string): Fields {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new BadMessage(`${where} is no object`);
    }
    return new Fields(value as Record<string, unknown>, where);
  }

  private wrong(name: string, wanted: string): BadMessage {
    const what = Object.hasOwn(this.from, name) ? "is not" : "is missing: it is";
    return new BadMessage(`${this.where}.${name} ${what} ${wanted}`);
  }

  private raw(name: string): unknown {
    return Object.hasOwn(this.from, name) ? this.from[name] : undefined;
  }

  /** Whether it is there and not null. */
  has(name: string): boolean {
    const value = this.raw(name);
    return value !== undefined && value !== null;
  }

  /** A string of at most `longest` UTF-16 units, without control characters. */
  text(name: string, longest: number): string {
    const value = this.raw(name);
    // eslint-disable-next-line no-control-regex -- they are what is looked for
    if (typeof value !== "string" || value.length > longest || /[\0-\x1f\x7f]/.test(value)) {
      throw this.wrong(name, `a string of at most ${longest} characters, none of them control characters`);
    }
    return value;
  }

  /** A string of at most `longest` UTF-16 units that may have several lines. */
  lines(name: string, longest: number): string {
    const value = this.raw(name);
    if (typeof value === "string" && value.length <= longest) return value;
    throw this.wrong(name, `a string of at most ${longest} characters`);
  }

  /** A whole number within the bounds. */
  number(name: string, least: number, most: number): number {
    const value = this.raw(name);
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
      throw this.wrong(name, `a whole number from ${least} to ${most}`);
    }
    return value;
  }

  /** true or false. */
  flag(name: string): boolean {
    const value = this.raw(name);
    if (typeof value !== "boolean") throw this.wrong(name, "true or false");
    return value;
  }

  /** One of a few words. */
  word<W extends string>(name: string, words: readonly W[]): W {
    const value = this.raw(name);
    const found = words.find((each) => each === value);
    if (found === undefined) throw this.wrong(name, `one of ${words.join(", ")}`);
    return found;
  }

  /** An array of at most `most` elements, each read by `read`. */
  list<T>(name: string, most: number, read: (element: unknown, where: string) => T): T[] {
    const value = this.raw(name);
    if (!Array.isArray(value) || value.length > most)
      throw this.wrong(name, `an array of at most ${most} elements`);
    return value.map((element, at) => read(element, `${this.where}.${name}[${at}]`));
  }

  /** An object. */
  object(name: string): Fields {
    return Fields.of(this.raw(name), `${this.where}.${name}`);
  }
}
