// The broker as its own user with four capabilities: its programs verify, it serves, adopts and cleans up.

import { execFileSync } from "node:child_process";
import { chownSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { buildSync } from "esbuild";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BrokerPlace, NOBODY, opened, powerless, whatIsLeft } from "../testing/broker.js";
import { ECHO } from "../testing/echo.js";
import { cannotRun, VethPair } from "../testing/veth.js";

const reason = cannotRun();
const USER = 64_123;
const FOUR = ["net_admin", "net_raw", "bpf", "ipc_lock"];
/** A program that loads the corpus, bundled, since what is for tests is not built. Beside what it takes from there. */
const LOADER = fileURLToPath(new URL("../../../control/src/broker/testing/load-corpus.ts", import.meta.url));
const BUNDLE = fileURLToPath(
  new URL(`../../../control/dist/load-corpus-${process.pid}.mjs`, import.meta.url),
);

/** The command before a command that gives it a user and these four capabilities, and no way to any other. */
const asBroker = [
  "setpriv",
  `--reuid=${USER}`,
  `--regid=${USER}`,
  "--clear-groups",
  ...["inh-caps", "ambient-caps", "bounding-set"].map(
    (set) => `--${set}=${["-all", ...FOUR.map((each) => `+${each}`)].join(",")}`,
  ),
  "--no-new-privs",
];

describe.skipIf(reason !== null)(
  `the broker's own user${reason === null ? "" : ` (skipped: ${reason})`}`,
  () => {
    let veth: VethPair;
    let place: BrokerPlace;

    beforeEach(() => {
      veth = new VethPair();
      place = new BrokerPlace(veth.netns);
      place.write(
        `[echo]\nuser = ${NOBODY}\ndevice = card0\nflow = udp dst port 7777\ntransmit = own\npass = yes\n`,
      );
      place.file("echo.mjs", ECHO);
      for (const path of [place.folder, place.path("bpf")]) chownSync(path, USER, USER);
    });
    afterEach(async () => {
      await place.remove();
      veth.remove();
      rmSync(BUNDLE, { force: true });
    });

    /** Names of maps and links, and the records of leases, are the broker's: its client's user reads and removes none. */
    async function keepsToItself(id: string): Promise<void> {
      const names = path.join(place.bpffs, id);
      const records = path.join(place.state, "leases");
      for (const folder of [place.bpffs, names, records]) {
        const { uid, mode } = statSync(folder);
        expect({ folder, uid, mode: mode & 0o777 }).toEqual({ folder, uid: USER, mode: 0o700 });
        const [name = ""] = readdirSync(folder);
        expect(name, folder).not.toBe("");
        const taken = place.run(
          [
            ...powerless(),
            process.execPath,
            "-e",
            `const { readdirSync, rmSync, unlinkSync } = require("node:fs");
             const [, folder, name] = process.argv;
             const code = (act) => { try { act(); return "done"; } catch ({ code }) { return code; } };
             console.log(code(() => readdirSync(folder)), code(() => unlinkSync(name)), code(() => rmSync(folder, { recursive: true })));`,
            folder,
            path.join(folder, name),
          ],
          "the client's user",
        );
        expect(await taken.ended).toBe(0);
        expect(taken.lines, folder).toEqual(["EACCES EACCES EACCES"]);
      }
    }

    it("loads every rule of the corpus with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK alone", () => {
      const external = ["@bifurcate/addon"];
      buildSync({
        entryPoints: [LOADER],
        outfile: BUNDLE,
        bundle: true,
        platform: "node",
        format: "esm",
        external,
      });
      const [command = "", ...args] = [...asBroker, process.execPath, BUNDLE];
      const out = JSON.parse(execFileSync(command, args, { encoding: "utf8", maxBuffer: 2 ** 20 })) as {
        rules: number;
        programs: number;
        capabilities: string[];
      };
      expect(out.rules).toBeGreaterThan(300);
      expect(out.programs).toBeGreaterThan(3 * out.rules);
      expect(out.capabilities.sort()).toEqual(["CAP_BPF", "CAP_IPC_LOCK", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
    }, 300_000);

    it("serves a lease, leaves it to the next broker, and takes it away", async () => {
      const first = await place.start(...asBroker);
      const before = whatIsLeft(place);
      const status = readFileSync(`/proc/${place.pid}/status`, "utf8");
      expect(status).toMatch(new RegExp(`^Uid:\\s+${USER}\\s+${USER}\\s+${USER}\\s+${USER}$`, "m"));
      const run = `run=${place.path("echo.mjs")}`;
      const client = place.client([
        "split",
        veth.card,
        "--flow",
        "udp dst port 7777",
        "--do",
        run,
        "--pass",
        "--json",
      ]);
      const { id } = await opened(client);
      expect((await veth.ask(7777, 5)).answered).toBe(5);
      await keepsToItself(id);
      await first.end("SIGKILL");
      const next = await place.start(...asBroker);
      expect(next.stderr).toContain("adopted 1 leases, ended 0");
      expect((await veth.ask(7777, 5)).answered).toBe(5);
      await client.end("SIGINT");
      await place.logged((entry) => entry.event === "end" && entry["lease"] === id);
      await place.settled(() =>
        Promise.resolve(JSON.stringify(whatIsLeft(place)) === JSON.stringify(before)),
      );
    });

    it("says which capability is missing", async () => {
      const three = asBroker.map((each) => each.replace(",+bpf", ""));
      const running = place.run([...three, process.execPath, ...place.daemon()], "the broker");
      expect(await running.ended).toBe(1);
      expect(running.stderr).toContain("the process lacks CAP_BPF");
      expect(running.stderr).toContain("E_NOT_PRIVILEGED");
    });
  },
);
