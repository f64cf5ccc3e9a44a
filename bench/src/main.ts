// `npm run bench -- NAME... [--json] [--runs N] [--seconds N] [--plot FILE] [--table FILE] [--targets] [--row ROW]`: runs benches and prints their rows.
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { afPacket } from "./benches/af-packet.js";
import { afXdp } from "./benches/af-xdp.js";
import { api } from "./benches/api.js";
import type { Bench, OwnOption } from "./benches/bench.js";
import { broker } from "./benches/broker.js";
import { guestPmd } from "./benches/guest-pmd.js";
import { guestVerbs } from "./benches/guest-verbs.js";
import { loopback } from "./benches/loopback.js";
import { loopbackTs } from "./benches/loopback-ts.js";
import { node } from "./benches/node.js";
import { soak } from "./benches/soak.js";
import { virtio } from "./benches/virtio.js";
import { toLine, toText } from "./rows.js";

const benches: readonly Bench[] = [
  loopback,
  loopbackTs,
  afXdp,
  afPacket,
  node,
  api,
  soak,
  virtio,
  broker,
  guestPmd,
  guestVerbs,
];

function usage(why: string): never {
  process.stderr.write(
    [
      why,
      "usage: npm run bench -- NAME... [--json] [--runs N] [--seconds N] [--plot FILE] [--table FILE] [--targets] [--row ROW]",
      ...benches.map((bench) => `  ${bench.name.padEnd(12)} ${bench.about}`),
      "",
    ].join("\n"),
  );
  process.exit(2);
}

function whole(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least || value > most) {
    usage(`--${name} ${text}: a whole number from ${least} to ${most}`);
  }
  return value;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    runs: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
    plot: { type: "string" },
    table: { type: "string" },
    targets: { type: "boolean", default: false },
    row: { type: "string", multiple: true },
  },
});
if (positionals.length === 0) usage("which bench?");
const chosen = positionals.map(
  (name) => benches.find((bench) => bench.name === name) ?? usage(`no bench '${name}'`),
);
for (const option of ["plot", "table", "targets", "row"] satisfies OwnOption[]) {
  if (values[option] === undefined || values[option] === false) continue;
  const without = chosen.find((bench) => bench.takes?.includes(option) !== true);
  if (without === undefined) continue;
  const those = benches.filter(({ takes }) => takes?.includes(option)).map(({ name }) => name);
  usage(`--${option}: the bench '${without.name}' has none; those that do: ${those.join(", ")}`);
}
const options = {
  runs: whole("runs", values.runs, 1, 99),
  seconds: whole("seconds", values.seconds, 1, 600),
  root: path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..", ".."),
  plot: values.plot,
  table: values.table,
  targets: values.targets,
  rows: values.row,
  progress: (text: string) => process.stderr.write(`bench: ${text}\n`),
};
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));
for (const bench of chosen) {
  for (const result of await bench.run(options)) {
    process.stdout.write(`${values.json ? toLine(result) : `${toText(result)}\n`}\n`);
  }
}
