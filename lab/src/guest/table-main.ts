// `npm run lab:table`: boots every kernel once and writes the table of drivers and modes in docs/lab.md anew.

import { DEFAULT_MACHINE, parseNics } from "./machine.js";
import { bootMachine } from "./session.js";
import { TABLE_NICS, writeTable } from "./table.js";

const say = (text: string): void => void process.stderr.write(`${text}\n`);

await writeTable((kernel) => {
  say(`booting ${kernel}`);
  return bootMachine({ ...DEFAULT_MACHINE, kernel, nics: parseNics(TABLE_NICS) }, say);
});
