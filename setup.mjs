// Makes this checkout ready to run: checks the tools, installs what is missing, builds. Node's built-ins only.
//
//   node setup.mjs [--for demo|test|bench]
//
// Each step is shown. A step whose inputs have not changed since it last succeeded is passed over, so a
// second run takes a moment. `.setup/` holds the stamps and the lock against a second run.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = path.dirname(fileURLToPath(import.meta.url));
const state = path.join(root, ".setup");
const stampsFile = path.join(state, "stamps.json");
const purpose = argumentOf("--for") ?? "demo";

/** Debian packages by purpose: the program whose presence proves it, and the package that brings it. */
const packages = {
  demo: [
    ["ip", "iproute2"],
    ["cc", "build-essential"],
  ],
  test: [
    ["ip", "iproute2"],
    ["cc", "build-essential"],
    ["setpriv", "util-linux"],
    ["ethtool", "ethtool"],
    ["iperf3", "iperf3"],
    ["dig", "bind9-dnsutils"],
    ["curl", "curl"],
    ["ping", "iputils-ping"],
    ["tcpdump", "tcpdump"],
    ["script", "bsdutils"],
    ["bpftool", "bpftool"],
    ["/usr/lib/*/libpcap.so.0.8", "libpcap0.8"],
    ["dpdk-testpmd", "dpdk-dev"],
  ],
  bench: [
    ["ip", "iproute2"],
    ["cc", "build-essential"],
    ["setpriv", "util-linux"],
    ["tcpdump", "tcpdump"],
    ["dpdk-testpmd", "dpdk-dev"],
    ["/usr/include/pcap.h", "libpcap-dev"],
  ],
};

function argumentOf(name) {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
}

function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

function fail(what, why, next) {
  process.stderr.write(`setup: ${what}\n  why:  ${why}\n  next: ${next}\n`);
  process.exit(77);
}

/** Whether a program is on PATH, or a file (one `*` per path element allowed) exists. */
function present(probe) {
  if (!probe.startsWith("/")) {
    return (process.env.PATH ?? "")
      .split(":")
      .concat("/usr/sbin", "/sbin")
      .some((folder) => folder !== "" && fs.existsSync(path.join(folder, probe)));
  }
  let found = ["/"];
  for (const part of probe.split("/").filter(Boolean)) {
    const pattern = new RegExp(
      `^${part
        .split("*")
        .map((s) => s.replace(/[.+]/g, "\\$&"))
        .join(".*")}$`,
    );
    found = found.flatMap((folder) => {
      if (!part.includes("*")) return fs.existsSync(path.join(folder, part)) ? [path.join(folder, part)] : [];
      try {
        return fs
          .readdirSync(folder)
          .filter((name) => pattern.test(name))
          .map((name) => path.join(folder, name));
      } catch {
        return [];
      }
    });
  }
  return found.length > 0;
}

function run(title, command, args, options = {}) {
  say(`${title}: ${command} ${args.join(" ")}`);
  const began = Date.now();
  // What a build prints goes to stderr, so that `npm run demo -- --json` keeps stdout for its own line.
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ["ignore", 2, 2], ...options });
  if (error || status !== 0) {
    fail(
      `${title} failed`,
      error ? error.message : `${command} ended with status ${status}`,
      "mend what the lines above say, and run the same command again; finished steps are not repeated",
    );
  }
  say(`${title}: done in ${((Date.now() - began) / 1000).toFixed(1)} s`);
}

/** One digest over the names and contents of every file below `places` that `wanted` accepts. */
function digest(places, wanted) {
  const hash = createHash("sha256");
  const visit = (place) => {
    const at = path.join(root, place);
    if (!fs.existsSync(at)) return;
    if (fs.statSync(at).isDirectory()) {
      for (const name of fs.readdirSync(at).sort()) {
        if (!["node_modules", "dist", "target"].includes(name)) visit(path.join(place, name));
      }
    } else if (wanted(place)) {
      hash.update(place).update("\0").update(fs.readFileSync(at)).update("\0");
    }
  };
  places.forEach(visit);
  return hash.digest("hex");
}

function readStamps() {
  try {
    return JSON.parse(fs.readFileSync(stampsFile, "utf8"));
  } catch {
    return {};
  }
}

/** Runs `work` unless `key` was stamped with this digest and `result` still exists. */
function step(key, value, result, work) {
  const stamps = readStamps();
  if (stamps[key] === value && fs.existsSync(path.join(root, result))) return;
  work();
  const fresh = { ...readStamps(), [key]: value };
  fs.writeFileSync(`${stampsFile}.new`, JSON.stringify(fresh, null, 2));
  fs.renameSync(`${stampsFile}.new`, stampsFile);
}

/** One set-up at a time; a lock whose owner is gone is taken over. */
function takeLock() {
  fs.mkdirSync(state, { recursive: true });
  const lock = path.join(state, "lock");
  const deadline = Date.now() + 15 * 60_000;
  let told = false;
  for (;;) {
    try {
      fs.writeFileSync(lock, String(process.pid), { flag: "wx" });
      process.on("exit", () => fs.rmSync(lock, { force: true }));
      for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));
      return;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    let owner;
    try {
      owner = fs.readFileSync(lock, "utf8");
    } catch {
      continue; // it was given back between the two calls
    }
    if (owner !== "" && !fs.existsSync(`/proc/${owner}`)) {
      fs.rmSync(lock, { force: true });
      continue;
    }
    if (!told) say(`another set-up (process ${owner}) is at work here; waiting for it`);
    told = true;
    if (Date.now() > deadline)
      fail(
        "waited 15 minutes for another set-up",
        `process ${owner} holds ${lock}`,
        `end it, or remove ${lock}`,
      );
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  }
}

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  fail(
    "this Node is too old",
    `it is ${process.versions.node}, and 20.19 is the oldest that works`,
    "install Node 20.19 or newer",
  );
}
if (process.platform !== "linux")
  fail("this is not Linux", "bifurcate speaks to the Linux kernel alone", "use a Linux machine");
if (!(purpose in packages))
  fail(`--for ${purpose}`, "no such purpose", `one of ${Object.keys(packages).join(", ")}`);
if (!present("cargo"))
  fail(
    "no Rust toolchain",
    "`cargo` is not on PATH",
    "install Rust 1.88 or newer with rustup, and open a new shell",
  );

takeLock();

const missing = packages[purpose].filter(([probe]) => !present(probe)).map(([, name]) => name);
if (missing.length > 0) {
  const names = [...new Set(missing)];
  const command = `apt-get install -y ${names.join(" ")}`;
  if (process.getuid() !== 0 || !present("apt-get")) {
    fail(
      `missing: ${names.join(", ")}`,
      "only root can install packages, and only where there is apt",
      `as root: ${command}`,
    );
  }
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  run("refresh the package lists", "apt-get", ["update", "-q"], { env });
  run("install system packages", "apt-get", ["install", "-y", "-q", "--no-install-recommends", ...names], {
    env,
  });
}

step(
  "npm",
  digest(["package-lock.json"], () => true),
  "node_modules/.package-lock.json",
  () => run("install npm dependencies", "npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]),
);

const rust = digest(
  ["Cargo.toml", "Cargo.lock", "linux", "datapath", "addon"],
  (file) => /\.(rs|toml|lock)$/.test(file) || file === "addon/build.mjs",
);
step("addon", rust, "addon/bifurcate.node", () =>
  run("build the native core", process.execPath, ["addon/build.mjs"]),
);

const typescript = digest(
  ["tsconfig.json", "tsconfig.base.json", "addon", "control", "bifurcate", "lab", "bench"],
  (file) => /\.(ts|json)$/.test(file),
);
step("typescript", typescript, "bifurcate/dist/index.js", () =>
  run("compile TypeScript", process.execPath, ["node_modules/typescript/bin/tsc", "-b"]),
);
