// docs/errors.md, made from the table of errors.
import { ERRORS } from "./errors.js";

const STATUS_WORDS = { 1: "1 (failed)", 2: "2 (usage)", 77: "77 (this machine cannot)" } as const;

/** The page as Markdown. `npx vitest run control/src/errors.test.ts -u` writes it. */
export function errorsPage(): string {
  const sections = Object.entries(ERRORS).map(
    ([code, entry]) =>
      `## ${code}\n\n${entry.meaning}\n\nNext: ${entry.next}\n\nExit status: ${STATUS_WORDS[entry.status]}.\n`,
  );
  return [
    "# Errors\n",
    "<!-- Made from control/src/error-table.ts. Do not edit by hand: a test compares them. -->\n",
    "Every error says what was tried, why it failed and what to do next, and has one of these codes. A code " +
      "keeps its meaning for ever, so scripts can compare with it: `--json` prints " +
      '`{"error":{"code","what","why","next"}}`, and in the API it is `error.code`.\n',
    ...sections,
  ].join("\n");
}
