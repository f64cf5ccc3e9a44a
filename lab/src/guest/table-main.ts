// `npm run lab:table [-- KERNEL...]`: boots every kernel once, or those named, and writes the table of drivers and modes in docs/lab.md anew.

import { DEFAULT_MACHINE, KERNELS, parseNics } from "./machine.js";
import { bootMachine } from "./session.js";
import { TABLE_NICS, writeTable } from "./table.js";

const say = (text: string): void => void process.stderr.write(`${text}\n`);

const named = process.argv.slice(2);
const kernels = KERNELS.filter((kernel) => named.length === 0 || named.includes(kernel));

await writeTable(kernels, (kernel) => {
  say(`booting ${kernel}`);
  return bootMachine({ ...DEFAULT_MACHINE, kernel, nics: parseNics(TABLE_NICS) }, say);
});
