// What is shipped for systemd, udev and tmpfiles: exactly the broker's capabilities, and a sandbox that V8 survives.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parsePolicy } from "./policy.js";
import { NEEDED } from "./start.js";

const read = (name: string): string => readFileSync(new URL(`../../system/${name}`, import.meta.url), "utf8");

describe("the systemd unit", () => {
  const unit = new Map(
    read("bifurcated.service")
      .split("\n")
      .filter((line) => /^[A-Z]\w+=/.test(line))
      .map((line) => line.split(/=(.*)/s, 2) as [string, string]),
  );

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
