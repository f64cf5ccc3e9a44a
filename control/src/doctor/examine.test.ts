// The doctor: each finding by a machine or card with that one fault, and what each mechanism lacks.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fakeFiles, GOOD_MACHINE } from "../testing/fake-files.js";
import {
  fakeCard,
  FakeKernel,
  fakeLink,
  fakeRule,
  fakeSocket,
  type FakeCard,
} from "../testing/fake-kernel.js";
import { bootId, ownIdentity } from "../facts/processes.js";
import type { Feature, Link } from "../kernel.js";
import { examine, type Examination } from "./examine.js";
import { FINDINGS, type FindingName } from "./finding.js";

let directory = "";
beforeAll(() => (directory = mkdtempSync(join(tmpdir(), "bifurcate-doctor-"))));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

interface Fault {
  readonly card?: Partial<FakeCard>;
  readonly files?: Readonly<Record<string, string | null>>;
  readonly kernel?: (kernel: FakeKernel) => void;
  /** What lies in the folder of journals. */
  readonly journal?: Record<string, unknown> | string;
  readonly ifname?: string;
}

const ALL_RIGHTS = [
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_BPF",
  "CAP_SYS_ADMIN",
  "CAP_SYS_RAWIO",
  "CAP_IPC_LOCK",
];

function examineWith(fault: Fault = {}): Examination {
  const kernel = new FakeKernel([fakeCard(fault.card)]);
  kernel.capabilityList = ALL_RIGHTS;
  fault.kernel?.(kernel);
  const stateDirectory = mkdtempSync(join(directory, "state-"));
  if (fault.journal !== undefined) {
    const text = typeof fault.journal === "string" ? fault.journal : JSON.stringify(fault.journal);
    writeFileSync(join(stateDirectory, "eth0-1a2b3c.json"), text);
  }
  const ifname = fault.ifname ?? "eth0";
  return examine(kernel, kernel.netns, fakeFiles(fault.files), { ifname, stateDirectory });
}

const RDMA = "/sys/class/infiniband";
const off: Feature = { active: false, requested: false, available: true, fixed: false };
const dead = {
  version: 1,
  id: "eth0-1a2b3c",
  bootId: "another boot",
  owner: { pid: 1, startTime: "0" },
  guardian: null,
  netns: { path: "/proc/1/ns/net", inode: 4026531840 },
  plan: {
    device: { ifindex: 2, name: "eth0" },
    steps: [],
    flows: ["udp dst port 53"],
    path: { backend: "af_xdp", queues: [3] },
  },
  steps: [],
  confirmBy: null,
  created: "2026-01-01T00:00:00Z",
};
const LIMITED = GOOD_MACHINE["/proc/self/limits"]!.replace(/unlimited/g, "8388608");
const channels = (combined: number): Partial<FakeCard> => ({
  now: { rx: 0, tx: 0, combined, other: 0 },
  rss: Array.from({ length: 32 }, (_, i) => i % combined),
});

const PCI = "/sys/bus/pci/devices";
const GROUP = "/sys/kernel/iommu_groups/1";
const WITH_FUNCTIONS = {
  [`${PCI}/0000:01:00.0/virtfn0`]: "-> ../0000:01:01.0",
  [`${PCI}/0000:01:00.0/virtfn1`]: "-> ../0000:01:01.1",
};

/** Another function in the card's IOMMU group, with a driver or without. */
const besideIt = (driver: string | null): Record<string, string> => ({
  [`${GROUP}/devices/0000:01:00.1`]: "",
  ...(driver === null ? {} : { [`${PCI}/0000:01:00.1/driver`]: `-> ../../../bus/pci/drivers/${driver}` }),
});

/** Puts an interface into the namespace that has nothing to do with addresses. */
function stack(kernel: FakeKernel, link: Partial<Link>): void {
  kernel.cards.push(fakeCard({ link: fakeLink({ index: 9, name: "up0", ...link }) }));
}

/** For each finding a fault that brings it, what it says, and what mends it. */
const FAULTS: Record<FindingName, [Fault, RegExp, RegExp]> = {
  "capability-missing": [
    { kernel: (kernel) => (kernel.capabilityList = ["CAP_NET_RAW", "CAP_IPC_LOCK"]) },
    /CAP_NET_ADMIN, CAP_BPF/,
    /setcap cap_net_admin,cap_bpf\+ep/,
  ],
  "no-af-xdp": [
    { files: { "/proc/net/protocols": "PACKET 1\n", "/proc/config.gz": "CONFIG_PACKET=y\n" } },
    /without AF_XDP/,
    /CONFIG_XDP_SOCKETS=y/,
  ],
  "memlock-too-small": [
    {
      files: { "/proc/self/limits": LIMITED },
      kernel: (kernel) => (kernel.capabilityList = ALL_RIGHTS.filter((each) => each !== "CAP_IPC_LOCK")),
    },
    /may lock 8 MiB .* 4 queues has 32 MiB/,
    /prlimit .*--memlock=unlimited/,
  ],
  "split-left": [{ journal: dead }, /eth0-1a2b3c \(udp dst port 53\) is dead/, /release --stale/],
  "journal-unreadable": [{ journal: "{" }, /eth0-1a2b3c/, /release --stale/],
  "comparison-left": [
    // One whose process lives is nobody's business.
    {
      files: {
        "/run/netns/bifurcate-compare-4242": "",
        "/run/netns/bifurcate-compare-4243": "",
        "/proc/4243/stat": "4243 (node) S",
        "/run/netns/bifurcate-compare-": "",
      },
    },
    /^the process of a comparison is gone and its namespace bifurcate-compare-4242 is left/,
    /^sudo ip netns del bifurcate-compare-4242$/,
  ],
  "no-hugepages": [
    { files: { "/proc/meminfo": "HugePages_Total: 0\nHugePages_Free: 0\nHugepagesize: 2048 kB\n" } },
    /no huge pages/,
    /vm\.nr_hugepages=16/,
  ],
  "hugepages-used-up": [
    { files: { "/proc/meminfo": "HugePages_Total: 8\nHugePages_Free: 0\nHugepagesize: 2048 kB\n" } },
    /all 8 huge pages are in use/,
    /vm\.nr_hugepages=24/,
  ],
  "no-bpffs": [
    { files: { "/proc/self/mounts": "proc /proc proc rw 0 0\n" } },
    /no BPF file system/,
    /mount -t bpf/,
  ],
  "bpf-jit-off": [
    { files: { "/proc/sys/net/core/bpf_jit_enable": "0\n" } },
    /interpreted/,
    /bpf_jit_enable=1/,
  ],
  "no-iommu": [
    { files: { "/sys/kernel/iommu_groups": null } },
    /no IOMMU \(its command line says intel_iommu=on iommu=pt\)/,
    /VT-d/,
  ],
  "no-xsk-diag": [
    {
      files: {
        "/lib/modules/6.18.0/modules.builtin": "",
        "/lib/modules/6.18.0/modules.dep": "net/xdp/xsk_diag.ko: \n",
      },
    },
    /lists no AF_XDP sockets/,
    /modprobe xsk_diag/,
  ],
  unreadable: [
    {
      kernel: (kernel) => {
        kernel.netns.features = () => {
          throw Object.assign(new Error("ioctl(ETHTOOL_GFEATURES): EPERM"), { code: "EPERM" });
        };
      },
    },
    /ETHTOOL_GFEATURES/,
    /as root/,
  ],
  "not-ethernet": [{ card: { link: fakeLink({ ethernet: false }) } }, /no Ethernet frames/, /below/],
  "link-down": [
    { card: { link: fakeLink({ up: false, carrier: false }) } },
    /down/,
    /ip link set dev eth0 up/,
  ],
  "no-carrier": [{ card: { link: fakeLink({ carrier: false }) } }, /no carrier/, /ethtool eth0/],
  "mtu-too-large": [{ card: { link: fakeLink({ mtu: 9000 }) } }, /9000.*3046/, /mtu 3046/],
  "foreign-program": [
    {
      card: { link: fakeLink({ xdp: { mode: "driver", programId: 77 } }) },
      kernel: (kernel) =>
        kernel.owners.set(77, { id: 77, name: "cilium_xdp", holders: [{ pid: 9, command: "cilium" }] }),
    },
    /program 77 \(cilium_xdp\), held by cilium \(pid 9\)/,
    /ip link set dev eth0 xdp off/,
  ],
  "rule-left": [
    {
      card: {
        rules: new Map([[7, fakeRule(2, 53, 3, 7)]]),
        rss: Array.from({ length: 32 }, (_, i) => i % 3),
      },
    },
    /rule 7 steers to queue 3/,
    /ethtool -N eth0 delete 7/,
  ],
  "umem-shared-wrongly": [
    {
      card: {
        sockets: [
          fakeSocket({
            holders: [
              { pid: 512, command: "a", fills: true },
              { pid: 513, command: "b", fills: true },
            ],
          }),
        ],
      },
    },
    /2 processes \(512, 513\).*queue 0/,
    /one process fill/,
  ],
  "too-many-queues": [
    {
      card: { driver: { driver: "ena", version: "", firmware: "", bus: "" }, ...channels(8) },
    },
    /half of its 8 queues in use, and 8 are/,
    /ethtool -L eth0 combined 4/,
  ],
  "queues-unequal": [
    {
      card: {
        driver: { driver: "gve", version: "", firmware: "", bus: "" },
        max: { rx: 16, tx: 16, combined: 0, other: 0 },
        now: { rx: 4, tx: 2, combined: 0, other: 0 },
      },
    },
    /as many transmit as receive queues in use, and 2 and 4 are/,
    /ethtool -L eth0 rx 2 tx 2$/,
  ],
  "no-xdp-in-driver": [
    { card: { xdpFeatures: { features: [], zeroCopyMaxSegments: 0, rxMetadata: [] } } },
    /ice has no XDP of its own/,
    /bifurcate devices/,
  ],
  "no-xdp-features": [{ card: { xdpFeatures: null } }, /6\.3/, /Linux 6\.3/],
  "one-queue": [{ card: channels(1) }, /one receive queue/, /ethtool -L eth0 combined 4/],
  "ntuple-off": [
    { card: { features: { "rx-ntuple-filter": off } } },
    /switched off/,
    /ethtool -K eth0 ntuple on/,
  ],
  "lro-on": [
    { card: { features: { "rx-lro": { ...off, active: true } } } },
    /LRO/,
    /ethtool -K eth0 lro off/,
  ],
  "carve-out-left": [
    { card: { rss: Array.from({ length: 32 }, (_, i) => i % 3) } },
    /leaves out queue 3/,
    /ethtool -X eth0 default/,
  ],
  "no-iommu-platform": [
    {
      card: { driver: { driver: "virtio_net", version: "", firmware: "", bus: "0000:01:00.0" } },
      files: { "/sys/bus/pci/devices/0000:01:00.0/virtio0/features": "1".repeat(33) + "0".repeat(31) },
    },
    /ACCESS_PLATFORM/,
    /iommu_platform=on/,
  ],
  "fill-before-bind": [
    { card: { driver: { driver: "igb", version: "", firmware: "", bus: "" } } },
    /fills? it first|fill ring when/,
    /fill ring before bind\(2\)/,
  ],
  "link-bounces": [
    {},
    /ice takes the interface down and up/,
    /no harm.*bifurcate split eth0 --backend af_packet$/,
  ],
};

describe("a machine and a card in good order", () => {
  it("have no problem", () => {
    const { findings } = examineWith();
    expect(findings.filter((each) => each.level === "problem")).toEqual([]);
    expect(findings.map((each) => each.name)).toEqual(["link-bounces"]);
  });
});

describe("every finding is named when its fault is there", () => {
  for (const name of Object.keys(FINDINGS) as FindingName[]) {
    it(name, () => {
      const [fault, says, mend] = FAULTS[name];
      const { findings } = examineWith(fault);
      const found = findings.find((each) => each.name === name);
      expect(found, findings.map((each) => each.name).join(", ")).toBeDefined();
      expect(found!.level).toBe(FINDINGS[name]);
      expect(found!.says).toMatch(says);
      expect(found!.mend).toMatch(mend);
    });
  }

  it("puts problems first", () => {
    const { findings } = examineWith({ ...FAULTS["mtu-too-large"][0], files: FAULTS["no-bpffs"][0].files! });
    expect(findings.map((each) => each.level)).toEqual(["problem", "advice", "advice"]);
  });
});

describe("limits of single drivers", () => {
  const problems = (driver: string, change: Partial<FakeCard>): [string, string][] =>
    examineWith({ card: { driver: { driver, version: "", firmware: "", bus: "" }, ...change } })
      .findings.filter(({ level }) => level === "problem")
      .map(({ name, mend }) => [name, mend]);
  /** A card that counts receive and transmit queues apart, as gve does. */
  const apart = (rx: number, tx: number, max: number): Partial<FakeCard> => ({
    max: { rx: max, tx: max, combined: 0, other: 0 },
    now: { rx, tx, combined: 0, other: 0 },
    rss: null,
  });
  const fragments = {
    features: ["basic", "redirect", "rx-sg"],
    zeroCopyMaxSegments: 1,
    rxMetadata: [],
  } as const;

  // The largest MTU that passes, and one more.
  it.each([
    ["ena", 3498],
    ["gve", 2032],
    ["mlx5_core", 3498],
  ])("the MTU of %s is %i at most", (driver, limit) => {
    expect(problems(driver, { link: fakeLink({ mtu: limit }) })).toEqual([]);
    expect(problems(driver, { link: fakeLink({ mtu: limit + 1 }) })).toEqual([
      ["mtu-too-large", `sudo ip link set dev eth0 mtu ${limit}`],
    ]);
  });

  it("mlx5 has none where its receive queue takes frames in fragments", () => {
    const link = fakeLink({ mtu: 9000 });
    expect(problems("mlx5_core", { link, xdpFeatures: fragments })).toEqual([]);
  });

  it("gve takes half of its queues, receive and transmit alike", () => {
    expect(problems("gve", apart(8, 8, 16))).toEqual([]);
    expect(problems("gve", apart(9, 9, 16))).toEqual([["too-many-queues", "sudo ethtool -L eth0 rx 8 tx 8"]]);
    expect(problems("gve", apart(4, 8, 16))).toEqual([["queues-unequal", "sudo ethtool -L eth0 rx 4 tx 4"]]);
  });

  it("ena takes half of its queues", () => {
    expect(problems("ena", channels(4))).toEqual([]);
    expect(problems("ena", channels(5))).toEqual([["too-many-queues", "sudo ethtool -L eth0 combined 4"]]);
  });

  it("mlx5 takes all of its queues", () => {
    expect(problems("mlx5_core", channels(8))).toEqual([]);
  });
});

describe("which cards are looked at", () => {
  it("without a name all that are up", () => {
    const down = fakeCard({ link: fakeLink({ index: 3, name: "eth1", up: false }) });
    const kernel = new FakeKernel([fakeCard(), down]);
    const found = examine(kernel, kernel.netns, fakeFiles(), { ifname: null, stateDirectory: directory });
    expect(found.cards.map((card) => card.name)).toEqual(["eth0"]);
    expect(found.leftOut).toEqual(["eth1"]);
  });

  it("one that is not there is an error", () => {
    expect(() => examineWith({ ifname: "eth9" })).toThrow(/eth0/);
  });

  it("a live split's program and queue are no findings", () => {
    const { findings } = examineWith({
      card: {
        link: fakeLink({ xdp: { mode: "driver", programId: 77 } }),
        rss: Array.from({ length: 32 }, (_, i) => i % 3),
        sockets: [fakeSocket({ queue: 3 })],
        rules: new Map([[7, fakeRule(2, 53, 3, 7)]]),
      },
      kernel: (kernel) =>
        kernel.owners.set(77, {
          id: 77,
          name: "bifurcate",
          holders: [{ pid: process.pid, command: "node" }],
        }),
      journal: { ...dead, bootId: bootId(), owner: ownIdentity() },
    });
    expect(findings.filter((each) => each.level === "problem")).toEqual([]);
  });
});

describe("mechanisms", () => {
  const lacks = (found: Examination, name: string): string[] =>
    found.cards[0]!.mechanisms.find((each) => each.name === name)!.lacks.map((lack) => lack.what);

  it("that lack nothing are ready", () => {
    const ready = examineWith()
      .cards[0]!.mechanisms.filter((each) => each.ready)
      .map((each) => each.name);
    expect(ready).toEqual([
      "AF_PACKET",
      "AF_XDP copy",
      "AF_XDP zero-copy",
      "VFIO group",
      "VFIO iommufd",
      "SR-IOV VF",
      "vhost-user",
    ]);
  });

  it("VFIO takes a card whose group nobody else drives", () => {
    for (const driver of [null, "vfio-pci", "pcieport"]) {
      expect(lacks(examineWith({ files: besideIt(driver) }), "VFIO group")).toEqual([]);
    }
  });

  it("UIO takes a card whose addresses nobody translates", () => {
    const files = { "/sys/module/uio_pci_generic/": "", [`${GROUP}/type`]: "identity\n" };
    expect(lacks(examineWith({ files }), "uio_pci_generic")).toEqual([]);
  });

  it("what mends virtual functions takes none away", () => {
    const { mechanisms } = examineWith({ files: WITH_FUNCTIONS }).cards[0]!;
    const mends = (name: string): string[] =>
      mechanisms.find((each) => each.name === name)!.lacks.map(({ mend }) => mend ?? "");
    expect(mends("VFIO group")).toEqual(["sudo bifurcate take 0000:01:01.0 --via vfio"]);
    expect(mends("igb_uio")).toContain(
      "sudo bifurcate take 0000:01:01.0 --via igb_uio --no-memory-protection",
    );
    expect(mechanisms.flatMap((each) => mends(each.name)).join()).not.toContain("sriov_numvfs");
  });

  it("what mends a shared group is what take says", () => {
    const { lacks: found } = examineWith({ files: besideIt("ice") }).cards[0]!.mechanisms.find(
      ({ name }) => name === "VFIO group",
    )!;
    expect(found[0]!.mend).toContain("echo 0000:01:00.1 > /sys/bus/pci/devices/0000:01:00.1/driver/unbind");
  });

  it("verbs is ready for datagrams where an RDMA device stands on the card", () => {
    const rxe = {
      [`${RDMA}/rxe0/ports/1/gid_attrs/ndevs/0`]: "eth0\n",
      "/usr/lib/libibverbs.so.1": "",
      "/sys/module/ib_uverbs/": "",
    };
    expect(lacks(examineWith({ files: rxe }), "verbs")).toEqual([]);
  });

  const cases: [string, Fault, RegExp][] = [
    ["AF_PACKET", { card: { link: fakeLink({ up: false }) } }, /is down/],
    ["AF_XDP copy", FAULTS["foreign-program"][0], /cilium/],
    ["AF_XDP copy", FAULTS["too-many-queues"][0], /half of its 8 queues/],
    ["AF_XDP copy", FAULTS["queues-unequal"][0], /as many transmit as receive/],
    [
      "AF_XDP zero-copy",
      { card: { xdpFeatures: { features: ["basic", "redirect"], zeroCopyMaxSegments: 0, rxMetadata: [] } } },
      /no zero-copy/,
    ],
    ["AF_XDP zero-copy", FAULTS["no-iommu-platform"][0], /ACCESS_PLATFORM/],
    ["queue lease", {}, /ice is not among/],
    ["queue lease", { files: { "/sys/module/netkit": null } }, /netkit/],
    ["queue lease", { kernel: (kernel) => (kernel.leasing = false) }, /7\.1/],
    ["VFIO group", { files: { "/sys/kernel/iommu_groups": null } }, /no IOMMU/],
    ["VFIO group", { files: besideIt("ice") }, /0000:01:00\.1 \(ice\) shares/],
    ["VFIO group", { files: { "/sys/module/vfio_pci": null } }, /vfio-pci is not loaded/],
    [
      "VFIO group",
      {
        kernel: (kernel) =>
          kernel.addressList.push({ ifindex: 2, family: 4, address: "192.0.2.1", prefix: 24 }),
      },
      /has addresses on eth0/,
    ],
    ["VFIO group", { kernel: (kernel) => stack(kernel, { kind: "vlan", link: 2 }) }, /up0 stands on eth0/],
    ["VFIO iommufd", { kernel: (kernel) => stack(kernel, { kind: "macvtap", link: 2 }) }, /up0 stands on/],
    [
      "VFIO group",
      {
        card: { link: fakeLink({ master: 9 }) },
        kernel: (kernel) => stack(kernel, { kind: "bridge" }),
      },
      /eth0 is a port of up0/,
    ],
    ["VFIO group", { files: WITH_FUNCTIONS }, /would go with it: 0000:01:01\.0, 0000:01:01\.1/],
    ["VFIO iommufd", { files: { "/dev/iommu": null, "/sys/module/iommufd": null } }, /iommufd/],
    ["VFIO without IOMMU", {}, /behind an IOMMU/],
    ["VFIO without IOMMU", {}, /mode without an IOMMU is off/],
    ["uio_pci_generic", {}, /uio_pci_generic is not loaded/],
    ["uio_pci_generic", FAULTS["no-hugepages"][0], /no huge pages/],
    ["igb_uio", {}, /without igb_uio/],
    ["igb_uio", { files: { [`${GROUP}/type`]: "DMA-FQ\n" } }, /its group \(DMA-FQ\): physical ones lead/],
    [
      "SR-IOV VF",
      { files: { "/sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs": "0" } },
      /no virtual functions/,
    ],
    [
      "SR-IOV VF",
      { files: WITH_FUNCTIONS },
      /0000:01:00\.0 has virtual functions already: 0000:01:01\.0, 0000:01:01\.1;/,
    ],
    ["VFIO without IOMMU", FAULTS["no-hugepages"][0], /no huge pages/],
    ["verbs", {}, /ice has no raw packet queue pairs, and no RDMA device for datagrams stands on eth0/],
    [
      "verbs",
      {
        card: { driver: { driver: "mlx5_core", version: "", firmware: "", bus: "0000:01:00.0" } },
        files: { [`${RDMA}/mlx5_3/ports/1/gid_attrs/ndevs/0`]: "eth7\n" },
      },
      /no RDMA device stands on eth0/,
    ],
    ["verbs", {}, /rdma-core is not installed/],
    ["vhost-user", FAULTS["no-hugepages"][0], /no huge pages/],
  ];
  for (const [name, fault, what] of cases) {
    it(`${name} lacks: ${what.source}`, () => {
      expect(lacks(examineWith(fault), name).join("; ")).toMatch(what);
    });
  }
});
