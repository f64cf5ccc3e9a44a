// The policy: who gets what, and errors that point at the line.
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BifurcateError } from "../errors.js";
import type { LeaseRequest } from "../protocol/messages.js";
import {
  checkMeans,
  decide,
  parsePolicy,
  readPolicy,
  type Asker,
  type Holding,
  type Policy,
} from "./policy.js";

const NAMES = {
  user: (name: string): number | null => ({ alice: 1000, bob: 1001 })[name] ?? (Number(name) || null),
  group: (name: string): number | null => ({ dns: 200 })[name] ?? (Number(name) || null),
};

const TEXT = `# who may lease what
admin = bob

[dns]
user = alice
group = dns
device = eth0            # the uplink
flow = udp dst port 53
flow = tcp dst port 53
transmit = own
memory = 16M
leases = 2

[probe]
user = bob
device = eth0
flow = icmp
pass = yes
transmit = raw
queues = 2
mechanism = port
draining = wait
rate = 1000
`;

const REQUEST: LeaseRequest = {
  device: "eth0",
  flows: ["udp dst port 53"],
  mechanism: "auto",
  transmit: "own",
  pass: false,
  queues: 1,
  frames: 4096,
  frameSize: 2048,
  ringSize: 2048,
  zeroCopy: "prefer",
  busyPoll: false,
  pages: "auto",
};
const NOTHING: Holding = { leases: 0, memory: 0 };
const alice: Asker = { uid: 1000, gids: [1000] };

function policy(text = TEXT): Policy {
  return parsePolicy(text, "/etc/bifurcate/policy", NAMES);
}

function why(text: string): string {
  try {
    policy(text);
  } catch (thrown) {
    if (thrown instanceof BifurcateError && thrown.code === "E_POLICY") return thrown.message;
    throw thrown;
  }
  return "";
}

function denied(asker: Asker, change: Partial<LeaseRequest>, held = NOTHING): string {
  try {
    decide(policy(), asker, { ...REQUEST, ...change }, () => held);
  } catch (thrown) {
    if (thrown instanceof BifurcateError && thrown.code === "E_LEASE_DENIED") return thrown.why;
    throw thrown;
  }
  return "";
}

describe("a policy", () => {
  it("is read with its defaults", () => {
    const [dns, probe] = policy().rules;
    expect(dns).toMatchObject({
      name: "dns",
      line: 4,
      device: "eth0",
      transmit: "own",
      pass: false,
      queues: 1,
      memory: 16 * 2 ** 20,
      leases: 2,
      rate: null,
      draining: "delete-port",
      mechanisms: ["port", "queue"],
      ownQueues: [],
    });
    expect(probe).toMatchObject({ pass: true, transmit: "raw", queues: 2, rate: 1000, draining: "wait" });
    expect([...policy().admins]).toEqual([1001]);
  });

  it("gives an outsider's port by name only", () => {
    const text = (mechanism: string): string =>
      `[dns]\nuser = alice\ndevice = eth0\nflow = udp\ntransmit = own\n${mechanism}`;
    const asks = (rules: string, mechanism: LeaseRequest["mechanism"]): string => {
      try {
        return decide(policy(rules), alice, { ...REQUEST, mechanism }, () => NOTHING).name;
      } catch (thrown) {
        return (thrown as BifurcateError).why;
      }
    };
    expect(asks(text(""), "foreign")).toContain("the mechanism is port or queue, not foreign");
    expect(asks(text("mechanism = port, foreign\n"), "foreign")).toBe("dns");
    expect(asks(text("mechanism = foreign\n"), "auto")).toContain("has to be asked for by name");
    expect(asks(text("mechanism = foreign\n"), "port")).toContain("the mechanism is foreign, not port");
  });

  it("is refused where it is to end processes and the broker may not", () => {
    const text = TEXT.replace("draining = wait", "draining = end-process");
    expect(policy(text).rules[1]).toMatchObject({ draining: "end-process" });
    expect(() => checkMeans(policy(text), ["CAP_NET_ADMIN", "CAP_KILL"])).not.toThrow();
    expect(() => checkMeans(policy(), ["CAP_NET_ADMIN"])).not.toThrow();
    expect(() => checkMeans(policy(text), ["CAP_NET_ADMIN"])).toThrow(/line 14.*CAP_KILL/s);
  });

  it("points at the line that is wrong", () => {
    const lines: [string, number, string][] = [
      ["nonsense", 1, "neither"],
      ["leases = 3", 1, "before the first"],
      ["[dns]\nuser = carol", 2, "no user 'carol'"],
      ["[dns]\nuser = alice\ngroup = wheel", 3, "no group 'wheel'"],
      ["[dns]\nuser = alice\ndevice = eth0", 1, "names no flow"],
      ["[dns]\nuser = alice\nflow = udp", 1, "names no device"],
      ["[dns]\ndevice = eth0\nflow = udp", 1, "names no user"],
      ["[dns]\nuser = alice\n\nflow = udp prot 53", 4, "prot"],
      ["[dns]\nuser = alice\ntransmit = all", 3, "none, own, raw"],
      ["[dns]\nuser = alice\nmemory = lots", 3, "64M"],
      ["[dns]\nuser = alice\nleases = 0", 3, "from 1"],
      ["[dns]\nuser = alice\nleases = 1\nleases = 2", 4, "line 3 already"],
      ["[dns]\nuser = alice\nmechanism = magic", 3, "magic"],
      ["[dns]\nuser = alice\nown-queues = 1, x", 3, "'x' is no queue's number"],
      ["[dns]\nuser = alice\nown-queues = 1, 2, 1", 3, "names queue 1 twice"],
      ["[dns]\nuser = alice\nown-queues = 1024", 3, "0 to 1023"],
      ["[dns]\nuser = alice\nflaw = udp", 3, "'flaw' is not known"],
      ["[dns]\nuser =", 2, "no value"],
      ["[d ns]", 1, "no name of a rule"],
      ["[dns]\nuser = alice\ndevice = a\nflow = udp\n[dns]", 5, "line 1 already"],
    ];
    for (const [text, line, words] of lines) {
      const said = why(text);
      expect(said, text).toContain(`line ${line}:`);
      expect(said, text).toContain(words);
    }
  });

  it("never fails in another way, whatever its text", () => {
    const key = fc.constantFrom("user", "group", "device", "flow", "memory", "leases", "rate", "x");
    const line = fc.oneof(
      fc.string(),
      fc.tuple(key, fc.string()).map(([name, value]) => `${name} = ${value}`),
      fc.constantFrom("[a]", "[b]", "# c", ""),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 12 }), (all) => {
        why(all.join("\n"));
      }),
      { numRuns: 1000 },
    );
  });
});

describe("a lease", () => {
  it("is given by user and by group, for a flow within one of the rule's", () => {
    expect(denied(alice, {})).toBe("");
    expect(denied({ uid: 7, gids: [7, 200] }, {})).toBe("");
    expect(denied(alice, { flows: ["udp dst port 53 and src net 10.0.0.0/8", "tcp dst port 53"] })).toBe("");
    expect(denied(alice, { transmit: "none" })).toBe("");
  });

  it("is denied with the reason", () => {
    expect(denied({ uid: 7, gids: [7] }, {})).toContain("no rule of the policy lets user 7");
    expect(denied(alice, { device: "eth1" })).toContain("lease eth1");
    expect(denied(alice, { flows: ["udp"] })).toContain("'udp' is not within");
    expect(denied(alice, { flows: ["udp dst port 53", "all"] })).toContain("'all' is not within");
    expect(denied(alice, { flows: ["udp dst portrange 53-54"] })).toContain("is not within");
    expect(denied(alice, { transmit: "raw" })).toContain("transmit 'own', not 'raw'");
    expect(denied(alice, { pass: true })).toContain("does not give pass");
    expect(denied(alice, { queues: 2 })).toContain("1 queues, not 2");
    expect(denied({ uid: 1001, gids: [] }, { flows: ["icmp"], mechanism: "queue" })).toContain("is port");
  });

  it("counts against what the user has by the rule", () => {
    expect(denied(alice, {}, { leases: 2, memory: 0 })).toContain("2 leases");
    expect(denied(alice, {}, { leases: 1, memory: 9 * 2 ** 20 })).toContain("memory");
    expect(denied(alice, {}, { leases: 1, memory: 8 * 2 ** 20 })).toBe("");
  });
});

describe("the policy's file", () => {
  let folder: string;
  let path: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bifurcate-policy-"));
    path = join(folder, "policy");
    writeFileSync(path, TEXT, { mode: 0o644 });
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const read = (): string => {
    try {
      return `${readPolicy(path, NAMES).rules.length} rules`;
    } catch (thrown) {
      if (thrown instanceof BifurcateError && thrown.code === "E_POLICY") return thrown.message;
      throw thrown;
    }
  };

  it("is read when nobody else may write it", () => {
    expect(read()).toBe("2 rules");
  });

  it("is refused when others may write it", () => {
    for (const mode of [0o664, 0o646]) {
      chmodSync(path, mode);
      expect(read()).toContain("others than its owner may write it");
    }
  });

  it.skipIf(process.getuid?.() !== 0)("is refused when another user owns it", () => {
    chownSync(path, 65_534, 65_534);
    expect(read()).toContain("belongs to user 65534");
  });

  it("is refused when it is missing", () => {
    rmSync(path);
    expect(read()).toContain("ENOENT");
  });
});
