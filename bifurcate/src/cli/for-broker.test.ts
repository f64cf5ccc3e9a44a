// What root prepares for a broker: raised or made, never lowered nor taken away.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BifurcateError } from "@bifurcate/control";
import { USUAL } from "@bifurcate/control/broker/start";
import { takeCommand } from "./commands/take.js";
import {
  handToBroker,
  parseFunctions,
  parseHugepages,
  prepareGround,
  type BrokerGround,
} from "./for-broker.js";

describe("what a broker stands on", () => {
  let folder: string;
  const at = (...names: string[]): string => path.join(folder, ...names);
  const read = (...names: string[]): string => readFileSync(at(...names), "utf8").trim();

  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "bf-for-broker-"));
    writeFileSync(at("nr_hugepages"), "8\n");
    for (const [card, there] of [
      ["eth0", 0],
      ["eth1", 2],
    ] as const) {
      mkdirSync(at(card));
      writeFileSync(at(card, "sriov_numvfs"), `${there}\n`);
      writeFileSync(at(card, "sriov_totalvfs"), "7\n");
    }
    mkdirSync(at("lo0"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const files = { hugepages: "", device: (name: string) => at(name) };
  function prepared(change: Partial<BrokerGround>): string {
    const asked = { hugepages: null, functions: [], ...change };
    try {
      return prepareGround(asked, { ...files, hugepages: at("nr_hugepages") }).join("; ");
    } catch (thrown) {
      if (thrown instanceof BifurcateError) return `${thrown.code}: ${thrown.why}`;
      throw thrown;
    }
  }

  it("has as many huge pages as are asked for, and never fewer than before", () => {
    expect(prepared({ hugepages: 64 })).toBe("huge pages: 64, where there were 8");
    expect(read("nr_hugepages")).toBe("64");
    expect(prepared({ hugepages: 16 })).toBe("huge pages: 64, as before");
    expect(read("nr_hugepages")).toBe("64");
  });

  it("has virtual functions where there were none, and leaves others alone", () => {
    expect(prepared({ functions: [parseFunctions("eth0=4")] })).toBe("eth0: 4 virtual functions, made");
    expect(read("eth0", "sriov_numvfs")).toBe("4");
    expect(prepared({ functions: [parseFunctions("eth0=4")] })).toBe("eth0: 4 virtual functions, as before");
    expect(prepared({ functions: [parseFunctions("eth1=3")] })).toMatch(
      /^E_SYSTEM: it has 2, and another number/,
    );
    expect(read("eth1", "sriov_numvfs")).toBe("2");
    rmSync(at("eth0"), { recursive: true });
    mkdirSync(at("eth0"));
    expect(prepared({ functions: [parseFunctions("eth0=4")] })).toMatch(/^E_SYSTEM: the card, or its driver/);
    expect(prepared({ functions: [parseFunctions("eth9=4")] })).toBe("E_SYSTEM: there is no such card");
  });

  it("asks no card for more than it has", () => {
    expect(prepared({ functions: [parseFunctions("eth0=8")] })).toBe("E_SYSTEM: it has at most 7");
    expect(read("eth0", "sriov_numvfs")).toBe("0");
  });

  it("takes nothing for an option that is none", () => {
    for (const text of [
      "eth0",
      "eth0=",
      "eth0=0",
      "=4",
      "../x=4",
      "eth0=4=4",
      "a b=1",
      "..=1",
      "eth0=9999",
    ]) {
      expect(() => parseFunctions(text), text).toThrow(/read --vfs/);
    }
    for (const text of ["0", "-1", "many", "1.5", ""]) {
      expect(() => parseHugepages(text), text).toThrow(/read --hugepages/);
    }
  });

  it.skipIf(process.geteuid?.() !== 0)(
    "has a card's own files and nobody else's (skipped: changing owners needs root)",
    () => {
      const files = { device: (address: string) => at("devices", address), dev: at("dev") };
      mkdirSync(at("devices", "0000:01:00.0", "vfio-dev", "vfio3"), { recursive: true });
      mkdirSync(at("groups", "7"), { recursive: true });
      symlinkSync(at("groups", "7"), at("devices", "0000:01:00.0", "iommu_group"));
      mkdirSync(at("dev", "vfio", "devices"), { recursive: true });
      const names = ["vfio/devices/vfio3", "vfio/devices/vfio4", "vfio/7", "vfio/8", "vfio/vfio", "iommu"];
      for (const name of names) writeFileSync(at("dev", name), "", { mode: 0o600 });
      expect(handToBroker("0000:01:00.0", 990, files)).toHaveLength(3);
      const owners = names.map((name) => {
        const { uid, mode } = statSync(at("dev", name));
        return `${name} ${uid} ${(mode & 0o777).toString(8)}`;
      });
      expect(owners).toEqual([
        "vfio/devices/vfio3 990 600",
        "vfio/devices/vfio4 0 600",
        "vfio/7 990 600",
        "vfio/8 0 600",
        "vfio/vfio 0 600",
        "iommu 990 660",
      ]);
      rmSync(at("dev", "vfio"), { recursive: true });
      expect(() => handToBroker("0000:01:00.0", 990, files)).toThrow(/no file for it/);
    },
  );
});

describe("what is shipped for systemd and udev", () => {
  const shipped = (name: string): string =>
    readFileSync(new URL(`../../../control/system/${name}`, import.meta.url), "utf8");
  const unit = shipped("bifurcated.service");
  const { options } = takeCommand({ out: () => undefined, err: () => undefined, live: false });
  const usual = (long: string): unknown => options.find((each) => each.long === long)?.defaultValue;

  it("goes by the user and the folders that take --for-broker prepares when nothing else is said, as the broker does", () => {
    expect(USUAL.bpffs).toBe(`${String(usual("--bpf"))}/names`);
    expect(USUAL.state).toBe(usual("--run"));
    expect(unit).toContain(` --policy ${USUAL.policy} `);
    expect(unit).toContain(`\nUser=${String(usual("--user"))}\n`);
    expect(unit).toContain(` --bpffs ${String(usual("--bpf"))}/names\n`);
    expect(unit).toContain(`\nReadWritePaths=-${String(usual("--bpf"))}\n`);
    // systemd.exec(5): a folder in /run.
    expect(`/run/${/^RuntimeDirectory=(.*)$/m.exec(unit)![1]!}`).toBe(usual("--run"));
    expect(unit).toContain("\nRuntimeDirectoryMode=0755\n");
  });

  it("gives a card's files the modes that take --for-broker gives them", () => {
    // What handToBroker makes of them stands above.
    const mode = (device: string): string | undefined =>
      new RegExp(`^(?:# )?${device}.*MODE="0?(\\d+)"`, "m").exec(shipped("60-bifurcate.rules"))?.[1];
    expect(mode('SUBSYSTEM=="vfio-dev"')).toBe("600");
    expect(mode('SUBSYSTEM=="vfio"')).toBe("600");
    expect(mode('KERNEL=="iommu"')).toBe("660");
  });
});
