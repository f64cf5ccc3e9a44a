// Runs every tier of tests and adds up what they say: `N passed, N failed, N skipped` is the last line.
//
//   npm test [-- --tier lint|rust|unit|netns|guest ...] [-- FILTER]
//   npm run test:guest -- --report     also writes what was seen of cards taken whole into docs/direct-access.md
//
// A test that cannot run says why and counts as skipped, never as passed; with CI=true a skip is a failure.
import { spawn } from "node:child_process";
import * as fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = path.dirname(fileURLToPath(import.meta.url));
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "bifurcate-test-"));
const total = { passed: 0, failed: 0, skipped: 0 };
const reasons = [];
/** What failed, by name and with its first words: said once more at the end, where a long log is looked at first. */
const failures = [];
/** Lines `INTEROP | ours | theirs | ...` that tests print: what has met what, in this run. */
const met = [];
/** Such a line; a test runner may put a colour before it. */
const MET = /INTEROP (\|.*\|)$/gm;

const wanted = process.argv.flatMap((word, at, all) => (word === "--tier" ? [all[at + 1]] : []));
const filters = process.argv
  .slice(2)
  .filter((word, at, all) => word !== "--tier" && word !== "--report" && all[at - 1] !== "--tier");
/** Where guest tests write a line a mechanism and driver, for the table of docs/direct-access.md. */
const cardLines = path.join(scratch, "cards");
if (process.argv.includes("--report")) process.env.BIFURCATE_GUEST_REPORT = cardLines;

/**
 * Milliseconds after which a test runner that says nothing is taken for hung: more than any one test may take, and it
 * tells each one as it ends. One that has lost one of its processes waits for it for ever.
 */
const SILENCE_MS = 20 * 60_000;

/** Ends a process, and those that it started: they may hold the pipes, and guests. */
function endAll(pid) {
  const children = `/proc/${pid}/task/${pid}/children`;
  const below = fs.existsSync(children) ? fs.readFileSync(children, "utf8").trim().split(" ") : [];
  process.kill(pid, "SIGKILL");
  for (const each of below.filter(Boolean)) {
    try {
      process.kill(Number(each), "SIGKILL");
    } catch {
      // It has ended with its parent.
    }
  }
}

/**
 * Runs a command, shows its output as it comes, and gives it back with the exit status.
 * @param silenceMs One that says nothing for so long is ended, and its status is that of timeout(1).
 */
function stream(command, args, env = {}, silenceMs = null) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    let hung = false;
    const end = () => {
      hung = true;
      const words = `Error: ${args.join(" ")}: silent for ${silenceMs / 60_000} minutes: ended\n`;
      text += words;
      process.stderr.write(words);
      endAll(child.pid);
    };
    const silence = silenceMs === null ? undefined : setTimeout(end, silenceMs);
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      from.on("data", (chunk) => {
        silence?.refresh();
        text += chunk;
        to.write(chunk);
      });
    }
    child.on("error", (error) => {
      clearTimeout(silence);
      resolve({ status: 127, text: error.message });
    });
    child.on("close", (status) => {
      clearTimeout(silence);
      met.push(...[...text.matchAll(MET)].map((match) => match[1]));
      resolve({ status: hung ? 124 : (status ?? 1), text });
    });
  });
}

function count(tier, passed, failed, skipped) {
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
  console.log(`\n== ${tier}: ${passed} passed, ${failed} failed, ${skipped} skipped\n`);
}

/** The last three lines that say anything, in one. */
const lastLines = (text) => text.trim().split("\n").slice(-3).join(" ");

/** A checker that only says yes or no counts as one test. */
async function check(name, command, args) {
  const { status, text } = await stream(command, args);
  if (status !== 0) failures.push(`${name}: exit status ${status}: ${lastLines(text)}`);
  count(name, status === 0 ? 1 : 0, status === 0 ? 0 : 1, 0);
}

async function lint() {
  // The build leaves tests out, and vitest drops their types unread.
  await check("types of tests", process.execPath, [
    "node_modules/typescript/bin/tsc",
    "-p",
    "tsconfig.tests.json",
  ]);
  await check("eslint", process.execPath, ["node_modules/eslint/bin/eslint.js", "."]);
  await check("prettier", process.execPath, [
    "node_modules/prettier/bin/prettier.cjs",
    "--check",
    "--log-level",
    "warn",
    ".",
  ]);
  await check("rustfmt", "cargo", ["fmt", "--all", "--check"]);
  await check("clippy", "cargo", [
    "clippy",
    "--workspace",
    "--all-targets",
    "--quiet",
    "--",
    "-D",
    "warnings",
  ]);
}

/** Where and with which words a Rust test panicked, of what cargo printed. */
function panicOf(name, text) {
  const its = text.split(`---- ${name} stdout ----`)[1] ?? "";
  const [, where, words] = /panicked at (\S+):\n(.*)/.exec(its) ?? [];
  return where === undefined ? "no panic was printed" : `${where} ${words}`;
}

async function rust() {
  // A Rust test that cannot run prints `SKIPPED name: reason` and returns; --show-output lets us see it.
  const { status, text } = await stream("cargo", [
    "test",
    "--workspace",
    "--no-fail-fast",
    ...filters,
    "--",
    "--show-output",
    "--test-threads=1",
  ]);
  // Every interleaving of the rings' two ends. Built apart: the flag is for every crate.
  const models = await stream("cargo", ["test", "-p", "bifurcate-datapath", "--lib", "ring::loom"], {
    RUSTFLAGS: "--cfg loom",
    CARGO_TARGET_DIR: path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, "target"), "loom"),
  });
  let [passed, failed, skipped] = [0, 0, 0];
  for (const [, p, f, i] of (text + models.text).matchAll(
    /test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/g,
  )) {
    passed += Number(p);
    failed += Number(f);
    skipped += Number(i);
  }
  const said = [...text.matchAll(/^SKIPPED (.+)$/gm)].map((match) => match[1]);
  reasons.push(...said);
  const broken = [...(text + models.text).matchAll(/^test (.+) \.\.\. FAILED$/gm)];
  failures.push(...broken.map((match) => `rust: ${match[1]}: ${panicOf(match[1], text + models.text)}`));
  for (const run of [{ status, text }, models]) {
    // It did not build, or a test process died.
    if (run.status === 0 || broken.length > 0) continue;
    failed += 1;
    failures.push(`rust: exit status ${run.status}: ${lastLines(run.text)}`);
  }
  count("rust", passed - said.length, failed, skipped + said.length);
}

async function vitest(project) {
  const output = path.join(scratch, `${project}.json`);
  const words = [
    "node_modules/vitest/vitest.mjs",
    "run",
    "--project",
    project,
    "--passWithNoTests",
    // Files of the unit tests are short; of the others one may take minutes, and what comes is to be seen.
    project === "unit" ? "--reporter=default" : "--reporter=verbose",
    "--reporter=json",
    `--outputFile.json=${output}`,
    ...filters,
  ];
  const { status, text } = await stream(process.execPath, words, {}, SILENCE_MS);
  let [passed, failed, skipped] = [0, 0, 0];
  if (fs.existsSync(output)) {
    const report = JSON.parse(fs.readFileSync(output, "utf8"));
    [passed, failed, skipped] = [
      report.numPassedTests,
      report.numFailedTests,
      report.numPendingTests + report.numTodoTests,
    ];
    for (const file of report.testResults) {
      const name = path.basename(file.name);
      if (file.status === "failed" && file.assertionResults.every((one) => one.status !== "failed"))
        failures.push(`${name}: ${file.message}`);
      for (const one of file.assertionResults) {
        if (one.status === "failed")
          failures.push(`${name}: ${one.fullName}: ${one.failureMessages[0]?.split("\n")[0] ?? ""}`);
        if (one.status === "pending" || one.status === "skipped") reasons.push(`${name}: ${one.fullName}`);
      }
    }
  }
  if (status !== 0 && failed === 0) {
    // A file that did not load, or an error that no test caught.
    failed = 1;
    const errors = [...text.matchAll(/^.*\bError: .*$/gm)].map((match) => match[0].trim());
    failures.push(`${project}: exit status ${status}: ${errors.slice(-3).join(" ") || lastLines(text)}`);
  }
  count(project, passed, failed, skipped);
}

/** Kernels that the guest tests name: the lab's when they name none. */
function guestKernels() {
  const kernels = new Set();
  for (const place of ["control", "bifurcate", "lab"]) {
    for (const name of fs.readdirSync(path.join(root, place, "src"), { recursive: true })) {
      if (!name.endsWith(".guest.test.ts")) continue;
      const text = fs.readFileSync(path.join(root, place, "src", name), "utf8");
      const named = [...text.matchAll(/\bkernel: "([^"]+)"/g)].map((match) => match[1]);
      for (const kernel of named.length > 0 ? named : ["lab"]) kernels.add(kernel);
    }
  }
  return [...kernels];
}

/** Guests boot from the user's cache: what is missing there is fetched and built first, outside any test's limit. */
async function guest() {
  const kernels = guestKernels();
  if (kernels.length === 0) return count("guest", 0, 0, 0);
  const { status, text } = await stream(process.execPath, [
    "bifurcate/bin/bifurcate.mjs",
    "lab",
    "fetch",
    ...kernels,
  ]);
  if (status === 0) {
    // Compiled while nothing else runs, what a test would compile beside a guest; the test says what went wrong.
    const words = ["--locked", "--profile", "guest", "-p", "bifurcate-client", "--example", "echo"];
    await stream("cargo", ["build", ...words]);
    await vitest("guest");
    // The last guest of each of its processes ends with that process, which leaves no time to tidy up.
    const { removeLeftFolders } = await import("./lab/dist/guest/run-folder.js");
    return removeLeftFolders();
  }
  const cannot = status === 77;
  (cannot ? reasons : failures).push(`guest: exit status ${status}: ${lastLines(text)}`);
  count("guest", 0, cannot ? 0 : 1, cannot ? 1 : 0);
}

/** Writes what the guest tests saw of each driver by each mechanism into the docs, and shows it. */
async function reportCards() {
  if (!fs.existsSync(cardLines)) return console.log("no test wrote a line for the report");
  // A test that failed has not seen all of its cards: the table would lack them without a word.
  if (failures.length > 0) return console.log("tests failed: docs/direct-access.md stays as it is");
  const results = fs
    .readFileSync(cardLines, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const { cardTable, withTable } = await import("./lab/dist/guest/card-table.js");
  const page = path.join(root, "docs/direct-access.md");
  const table = cardTable(results);
  fs.writeFileSync(page, withTable(fs.readFileSync(page, "utf8"), table));
  console.log(`${table}\nwritten to docs/direct-access.md`);
}

const tiers = { lint, rust, unit: () => vitest("unit"), netns: () => vitest("netns"), guest };

try {
  for (const name of wanted) {
    if (!(name in tiers)) {
      console.error(`no tier '${name}'; there are: ${Object.keys(tiers).join(", ")}`);
      process.exit(2);
    }
  }
  for (const [name, tier] of Object.entries(tiers)) {
    if (wanted.length === 0 || wanted.includes(name)) await tier();
  }
  if (met.length > 0) console.log(`interoperation over vhost-user:\n  ${met.join("\n  ")}`);
  if (process.argv.includes("--report")) await reportCards();
  if (reasons.length > 0) console.log(`skipped:\n  ${reasons.join("\n  ")}`);
  if (failures.length > 0) console.log(`failed:\n  ${failures.join("\n  ")}`);
  const strict = process.env.CI === "true" && total.skipped > 0;
  if (strict) console.log("CI=true: a skip is a failure");
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  process.exitCode = total.failed > 0 || strict || total.passed === 0 ? 1 : 0;
} finally {
  fs.rmSync(scratch, { recursive: true, force: true });
}
