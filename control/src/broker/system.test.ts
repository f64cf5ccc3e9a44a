// What is shipped for systemd, udev, tmpfiles and sysusers: exactly the broker's capabilities, a sandbox that V8 survives,
// one user, and files that are his.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parsePolicy } from "./policy.js";
import { NEEDED } from "./start.js";

const read = (name: string): string => readFileSync(new URL(`../../system/${name}`, import.meta.url), "utf8");

const unit = new Map(
  read("bifurcated.service")
    .split("\n")
    .filter((line) => /^[A-Z]\w+=/.test(line))
    .map((line) => line.split(/=(.*)/s, 2) as [string, string]),
);
const user = unit.get("User")!;

describe("the systemd unit", () => {
  it("gives the capabilities that the broker needs, and bounds it to them", () => {
    for (const set of ["AmbientCapabilities", "CapabilityBoundingSet"]) {
      expect(unit.get(set)?.split(" ").sort(), set).toEqual([...NEEDED].sort());
    }
    expect(unit.get("NoNewPrivileges")).toBe("yes");
    expect(unit.get("User")).not.toBe("root");
  });

  it("does not forbid what V8 does, and takes away what Node would obey", () => {
    expect(unit.has("MemoryDenyWriteExecute")).toBe(false);
    expect(unit.get("UnsetEnvironment")?.split(" ")).toContain("NODE_OPTIONS");
  });

  it("leaves what the next broker adopts", () => {
    expect(unit.get("RuntimeDirectoryPreserve")).toBe("yes");
    // A mount that a command makes in its own namespace would end with it.
    const prepare = read("bifurcated.service").match(/(?<=^(# )?ExecStartPre=).*$/gm);
    for (const each of prepare!) expect(each).toMatch(/^\+nsenter --target 1 --mount bifurcate take /);
    expect(prepare).toHaveLength(2);
    for (const family of ["AF_UNIX", "AF_NETLINK", "AF_XDP"]) {
      expect(unit.get("RestrictAddressFamilies")?.split(" ")).toContain(family);
    }
  });

  it("opens the devices of return ports and of cards that are leased whole, and no other", () => {
    const allowed = read("bifurcated.service").match(/(?<=^DeviceAllow=).*$/gm);
    expect(allowed).toEqual([
      "/dev/net/tun rw",
      "char-vfio-dev rw",
      "char-vfio rw",
      "/dev/vfio/vfio rw",
      "/dev/iommu rw",
    ]);
    expect(unit.get("DevicePolicy")).toBe("closed");
  });

  it("has the modules of a card that is leased whole loaded first: by then its devices must have names", () => {
    // systemd.resource-control(5), DeviceAllow=: char-vfio is looked up in /proc/devices when the unit starts.
    const modules = "modprobe@vfio_pci.service modprobe@iommufd.service";
    const lines = read("bifurcated.service").split("\n");
    const service = lines.indexOf("[Service]");
    for (const key of ["Wants", "After"]) {
      const at = lines.indexOf(`# ${key}=${modules}`);
      expect(at, key).toBeGreaterThan(lines.indexOf("[Unit]"));
      expect(at, key).toBeLessThan(service);
    }
  });
});

const analyses = spawnSync("systemd-analyze", ["--version"]).status === 0;

describe.skipIf(!analyses)(`systemd${analyses ? "" : " (skipped: needs systemd-analyze)"}`, () => {
  /** What systemd-analyze says of the unit, with commands that are there. */
  function analyse(args: string[], unit = read("bifurcated.service")): string {
    const folder = mkdtempSync(join(tmpdir(), "bifurcate-unit-"));
    try {
      const path = join(folder, "bifurcated.service");
      writeFileSync(path, unit.replace(/^(Exec\w+=)bifurcated/gm, `$1${process.execPath}`));
      return execFileSync("systemd-analyze", [...args, path], { encoding: "utf8", stdio: "pipe" });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  it("finds nothing wrong with the unit", () => {
    expect(analyse(["verify"])).toBe("");
  });

  it("finds nothing wrong with it for a card that is leased whole", () => {
    expect(analyse(["verify"], read("bifurcated.service").replace(/^# (?=[A-Z]\w+=)/gm, ""))).toBe("");
  });

  it("finds its exposure no more than medium, which is what its capabilities come to", () => {
    const json = JSON.parse(analyse(["security", "--offline=true", "--json=short"])) as {
      json_field: string;
      set: boolean | null;
      exposure: string | null;
    }[];
    const open = json.filter(({ set }) => set === false).map(({ json_field }) => json_field);
    // The four capabilities, and what they are for.
    for (const own of ["CapabilityBoundingSet_CAP_NET_ADMIN", "CapabilityBoundingSet_CAP_BPF"]) {
      expect(open).toContain(own);
    }
    for (const closed of [
      "CapabilityBoundingSet_CAP_SYS_ADMIN",
      "NoNewPrivileges",
      "ProtectSystem",
      "UserOrDynamicUser",
    ]) {
      expect(open).not.toContain(closed);
    }
  });
});

/** The lines of a file that say something. */
const lines = (name: string): string[] =>
  read(name)
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
const policyFile = /--policy (\S+)/.exec(unit.get("ExecStart")!)![1]!;

describe("the broker's user", () => {
  it("is one and the same in all that is shipped, and in the first of the five commands", () => {
    expect(unit.get("Group")).toBe(user);
    // sysusers.d(5): type, name, number, comment, home, shell. A `u` has a group of its own name.
    const [only, ...more] = lines("bifurcate.sysusers.conf").map((line) => line.match(/"[^"]*"|\S+/g));
    expect([only, more]).toEqual([["u", user, "-", expect.any(String) as string, "-", "-"], []]);
    const docs = readFileSync(new URL("../../../docs/broker.md", import.meta.url), "utf8");
    expect(docs).toContain(`useradd --system --user-group --no-create-home ${user}\n`);
    for (const [, prepared] of read("bifurcated.service").matchAll(/--for-broker --user (\S+)/g)) {
      expect(prepared).toBe(user);
    }
    expect(unit.get("After")?.split(" ")).toContain("systemd-sysusers.service");
  });

  it("does not own the policy's folder", () => {
    expect(lines("bifurcate.tmpfiles.conf")).toEqual([`d ${dirname(policyFile)} 0755 root root -`]);
  });
});

const makers = ["systemd-sysusers", "systemd-tmpfiles"].every(
  (each) => spawnSync(each, ["--version"]).status === 0,
);
const noMakers = makers
  ? process.geteuid?.() === 0
    ? null
    : "changing owners needs root"
  : "needs systemd-sysusers and systemd-tmpfiles";

describe.skipIf(noMakers !== null)(
  `what systemd makes at the start of a machine${noMakers === null ? "" : ` (skipped: ${noMakers})`}`,
  () => {
    let root: string;
    beforeEach(() => {
      root = mkdtempSync(join(tmpdir(), "bifurcate-made-"));
      mkdirSync(join(root, "etc"));
    });
    afterEach(() => rmSync(root, { recursive: true, force: true }));
    const make = (command: string, args: string[], file: string): void =>
      void execFileSync(command, [`--root=${root}`, ...args, "-"], { input: read(file), stdio: "pipe" });
    const entry = (file: string): string[] =>
      readFileSync(join(root, "etc", file), "utf8")
        .split("\n")
        .map((line) => line.split(":"))
        .find(([name]) => name === user)!;

    it("is a user of the system's, with a group of his own, and no login", () => {
      make("systemd-sysusers", [], "bifurcate.sysusers.conf");
      const [, , uid, gid, , home, shell] = entry("passwd");
      expect(Number(uid)).toBeGreaterThan(0);
      expect(Number(uid)).toBeLessThan(1000);
      expect([entry("group")[2], home]).toEqual([gid, "/"]);
      expect(shell).toMatch(/\/nologin$/);
    });

    it("is a folder of the policy that nobody but root writes", () => {
      make("systemd-tmpfiles", ["--create"], "bifurcate.tmpfiles.conf");
      const { uid, gid, mode } = statSync(join(root, dirname(policyFile)));
      expect([uid, gid, (mode & 0o7777).toString(8)]).toEqual([0, 0, "755"]);
    });
  },
);

describe("the udev rules", () => {
  /** Keys of a rule with their operators, udev(7). */
  function rule(line: string): Record<string, string> {
    const parts = line.split(/,\s*/).map((part) => {
      const [, key, operator, value] = /^([A-Z]+(?:\{[\w/]+\})?)(==|\+=|=)"([^"]*)"$/.exec(part) ?? [];
      expect(key, `${line}: ${part}`).toBeDefined();
      return [`${key}${operator}`, value!];
    });
    return Object.fromEntries(parts) as Record<string, string>;
  }
  const active = lines("60-bifurcate.rules").map(rule);
  const examples = read("60-bifurcate.rules")
    .match(/(?<=^# )[A-Z]+(\{\w+\})?==.*$/gm)!
    .map(rule);

  it("let the broker's group have the two devices that are no card's, and take neither from anybody", () => {
    expect(active).toEqual([
      { "KERNEL==": "iommu", "SUBSYSTEM==": "misc", "GROUP=": user, "MODE=": "0660" },
      // Everybody's by udev's own rule (50-udev-default.rules, 0666): a mode here would take it from containers.
      { "KERNEL==": "tun", "SUBSYSTEM==": "misc", "GROUP=": user },
    ]);
  });

  it("have examples that give the broker itself, and nobody else, the files of one card", () => {
    expect(examples).toEqual([
      {
        "ACTION==": "add",
        "SUBSYSTEM==": "net",
        "ENV{ID_PATH}==": "pci-0000:01:00.0",
        "ATTR{device/sriov_numvfs}=": "4",
      },
      { "SUBSYSTEM==": "vfio-dev", "KERNELS==": "0000:01:00.0", "OWNER=": user, "MODE=": "0600" },
      { "SUBSYSTEM==": "vfio", "KERNEL==": "7", "OWNER=": user, "MODE=": "0600" },
    ]);
  });

  it("are about what the unit opens", () => {
    const allowed = read("bifurcated.service").match(/(?<=^DeviceAllow=)\S+/gm);
    for (const device of ["/dev/iommu", "/dev/net/tun", "char-vfio-dev", "char-vfio"]) {
      expect(allowed).toContain(device);
    }
  });
});

describe("the example of a policy", () => {
  it("is one", () => {
    const names = { user: () => 65_534, group: () => 65_534 };
    const { rules } = parsePolicy(read("policy.example"), "policy.example", names);
    expect(rules).toMatchObject([{ name: "dns", device: "eth0", transmit: "own", pass: false, leases: 4 }]);
  });

  it("names every key, commented out where it is at its default", () => {
    for (const key of ["user", "group", "device", "flow", "transmit", "pass", "queues", "memory", "leases"]) {
      expect(read("policy.example"), key).toMatch(new RegExp(`^(# )?${key} = `, "m"));
    }
    for (const key of ["rate", "mechanism", "own-queues", "draining", "admin"]) {
      expect(read("policy.example"), key).toMatch(new RegExp(`^# ${key} = `, "m"));
    }
  });
});
