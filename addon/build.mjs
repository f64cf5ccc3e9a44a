// Builds the native addon: bifurcate.node, and index.d.ts from the Rust declarations. Node's built-ins only.
//
//   node addon/build.mjs           builds, copies the library here and rewrites index.d.ts
//   node addon/build.mjs --check   builds, changes nothing here, and fails when index.d.ts is out of date
import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { declarations } from "./declarations.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.dirname(here);
const target = path.resolve(root, process.env.CARGO_TARGET_DIR ?? "target");
// napi-derive appends one JSON line an item to FOLDER/CRATE while the crate is compiled.
const folder = path.join(target, "addon-declarations");
const lines = path.join(folder, "bifurcate-addon");
const types = path.join(here, "index.d.ts");

function cargo(environment = {}) {
  const { status, error } = spawnSync("cargo", ["build", "--release", "--locked", "-p", "bifurcate-addon"], {
    cwd: root,
    stdio: ["ignore", 2, 2],
    env: { ...process.env, NAPI_TYPE_DEF_TMP_FOLDER: folder, ...environment },
  });
  if (error) fail(`cannot run cargo: ${error.message}; install Rust (https://rustup.rs)`);
  if (status !== 0) fail(`cargo ended with status ${status}; its messages are above`);
}

function fail(why) {
  process.stderr.write(`addon: ${why}\n`);
  process.exit(1);
}

fs.mkdirSync(folder, { recursive: true });
cargo();
// A build that died half-way may have left no lines, and cargo would not compile again for that alone.
if (!fs.existsSync(lines)) cargo({ NAPI_FORCE_BUILD_BIFURCATE_ADDON: String(Date.now()) });

const text = declarations(fs.readFileSync(lines, "utf8"));
if (process.argv.includes("--check")) {
  const now = fs.existsSync(types) ? fs.readFileSync(types, "utf8") : "";
  if (now !== text) fail("index.d.ts is out of date; run `node addon/build.mjs` and commit it");
} else {
  // Renamed into place: a process that has the old library mapped keeps it whole.
  const library = path.join(here, "bifurcate.node");
  fs.copyFileSync(path.join(target, "release", "libbifurcate_addon.so"), `${library}.new`);
  fs.renameSync(`${library}.new`, library);
  fs.writeFileSync(types, text);
}
