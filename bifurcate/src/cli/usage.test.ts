// The command line without a machine behind it: help, versions, and every way to mistype it.
import { describe, expect, it } from "vitest";
import { runCommandLine } from "./program.js";

async function type(...argv: string[]): Promise<{ status: number; out: string; err: string }> {
  const said = { out: "", err: "" };
  const streams = {
    out: (text: string) => void (said.out += text),
    err: (text: string) => void (said.err += text),
    live: false,
  };
  return { status: await runCommandLine(argv, streams), ...said };
}

describe("help", () => {
  for (const words of [["--help"], ["split", "--help"], ["help", "devices"], ["lab", "up", "--help"]]) {
    it(`bifurcate ${words.join(" ")} goes to stdout, with status 0`, async () => {
      const { status, out, err } = await type(...words);
      expect([status, err]).toEqual([0, ""]);
      expect(out).toContain("Usage: bifurcate");
    });
  }

  it("has examples in every command that changes something", async () => {
    for (const command of [
      "split",
      "open",
      "forward",
      "release",
      "devices",
      "doctor",
      "explain",
      "compare",
      "confirm",
    ]) {
      expect((await type(command, "--help")).out).toContain("Examples:\n  bifurcate ");
    }
  });

  it("says its version", async () => expect((await type("--version")).out).toMatch(/^\d+\.\d+\.\d+\n$/));
});

describe("mistyped", () => {
  const cases: [string, string[], string, string][] = [
    ["nothing at all", [], "E_USAGE", "one of devices, doctor, split, "],
    ["a lab without a command", ["lab"], "E_USAGE", "one of up, down, status, guest, fetch"],
    ["an unknown command", ["splt", "eth0"], "E_USAGE", "Did you mean split"],
    ["no device", ["split"], "E_USAGE", "DEV"],
    ["too many words", ["split", "eth0", "eth1", "--flow", "udp"], "E_USAGE", "too many arguments"],
    ["an unknown option", ["split", "eth0", "--flows", "udp"], "E_USAGE", "Did you mean --flow"],
    ["an option without its value", ["split", "eth0", "--flow"], "E_USAGE", "argument missing"],
    ["no flow", ["split", "eth0"], "E_NO_FLOW", "no flow was named"],
    [
      "a queue that is no number",
      ["split", "eth0", "--flow", "udp", "--queues", "x"],
      "E_BAD_OPTION",
      "--queues 'x'",
    ],
    [
      "a broker's user who is none, before the card is looked for",
      ["take", "0000:ff:1f.7", "--for-broker", "--user", "no-such-user"],
      "E_BAD_OPTION",
      "no such user",
    ],
    ...["uio_pci_generic", "igb_uio", "vfio-noiommu"].map((via): [string, string[], string, string] => [
      `a card for the broker by ${via}, before it is looked for`,
      ["take", "0000:ff:1f.7", "--for-broker", "--via", via, "--no-memory-protection"],
      "E_USAGE",
      `--for-broker takes cards behind an IOMMU only, and ${via} has no memory protection`,
    ]),
    [
      "a backend that is none",
      ["split", "eth0", "--flow", "udp", "--backend", "dpdk"],
      "E_BAD_OPTION",
      "dpdk",
    ],
    ["an action that is none", ["split", "eth0", "--flow", "udp", "--do", "fly"], "E_BAD_OPTION", "fly"],
    [
      "a processor that is not there",
      ["split", "eth0", "--flow", "udp", "--cores", "0,4095"],
      "E_BAD_OPTION",
      "no processor 4095",
    ],
    [
      "a handler that is not there, before the card is looked at",
      ["split", "nosuchcard", "--flow", "udp", "--do", "run=nosuchfile.ts", "--dry-run"],
      "E_HANDLER_FILE",
      "no such file",
    ],
    [
      "an output for what sends nothing there",
      ["split", "eth0", "--flow", "udp", "--do", "reflect", "--output", "eth1"],
      "E_BAD_OPTION",
      "--output 'eth1'",
    ],
    [
      "a time that is none",
      ["split", "eth0", "--flow", "udp", "--confirm", "soon"],
      "E_BAD_OPTION",
      "--confirm 'soon'",
    ],
    ["a device that is none", ["open", "vhost:/run/x"], "E_BAD_OPTION", "no device named 'vhost'"],
    [
      "a socket without a path",
      ["open", "vhost-user:,server"],
      "E_BAD_OPTION",
      "path of the socket is missing",
    ],
    [
      "a capture of the loopback device",
      ["open", "loopback", "--tap", "x.pcapng"],
      "E_BAD_OPTION",
      "--tap 'x.pcapng'",
    ],
    [
      "an output for what is only counted",
      ["open", "loopback", "--output", "virtio-user:x"],
      "E_BAD_OPTION",
      "--output 'virtio-user:x'",
    ],
    [
      "a bad spec to forward to",
      ["open", "loopback", "--do", "forward=vhost-user:/x,queues=0"],
      "E_BAD_OPTION",
      "queues is 1 to 127",
    ],
    [
      "an option twice",
      ["split", "eth0", "--flow", "udp", "--seconds", "1", "--seconds", "5"],
      "E_BAD_OPTION",
      "--seconds '5': it was given before, as '1'",
    ],
    [
      "a capture file without a name",
      ["split", "eth0", "--flow", "udp", "--tap="],
      "E_BAD_OPTION",
      "the name of the file is empty",
    ],
    ["one end alone", ["forward", "eth0"], "E_USAGE", "missing required argument"],
    [
      "the same end twice",
      ["forward", "vhost-user:x", "vhost-user:x"],
      "E_BAD_OPTION",
      "both ends are the same",
    ],
    ["an interface without a flow", ["forward", "eth0", "vhost-user:x"], "E_NO_FLOW", "no flow was named"],
    [
      "a flow of no interface",
      ["forward", "loopback", "vhost-user:x", "--flow", "udp"],
      "E_BAD_OPTION",
      "neither end is one",
    ],
    ["an ID and --stale", ["release", "eth0-1", "--stale"], "E_USAGE", "exclude each other"],
    ["a lab without what to do", ["lab"], "E_USAGE", "a command is missing"],
    ["a lab's name that is none", ["lab", "up", "Not_A_Name"], "E_BAD_OPTION", "Not_A_Name"],
    ["a lab of too many", ["lab", "up", "--clients", "3"], "E_BAD_OPTION", "from 1 to 2"],
    ["a syntax error in an expression", ["explain", "udp dst prt 53"], "E_FLOW_SYNTAX", "at character"],
    [
      "a packet that cannot be parsed",
      ["explain", "eth0", "udp 192.0.2.1:1 > 192.0.2.2:dns"],
      "E_PACKET_SYNTAX",
      "(at character 29)",
    ],
    [
      "a packet's option for an expression",
      ["explain", "udp", "--live"],
      "E_USAGE",
      "--live is about a packet",
    ],
    [
      "seconds without counting",
      ["explain", "eth0", "arp 192.0.2.1 > 192.0.2.2", "--seconds", "3"],
      "E_BAD_OPTION",
      "--seconds '3'",
    ],
    [
      "a packet's number without a file",
      ["explain", "eth0", "arp 192.0.2.1 > 192.0.2.2", "--packet", "3"],
      "E_BAD_OPTION",
      "--packet '3'",
    ],
    ["a name in an expression", ["explain", "host www.example.com"], "E_FLOW_NAME", "www.example.com"],
    ["a flow that no frame can match", ["explain", "ip and ip6"], "E_FLOW_NEVER", "no packet"],
  ];
  for (const [what, words, code, part] of cases) {
    it(`${what}: ${code}, status 2, what, why and next`, async () => {
      const { status, out, err } = await type(...words);
      expect([status, out]).toEqual([2, ""]);
      expect(err).toContain(part);
      expect(err).toMatch(new RegExp(`^bifurcate: .*: [\\s\\S]+\\n {2}next: .+\\n {2}code: ${code}\\n$`));
    });

    // There --json would be taken for the missing value.
    if (what === "an option without its value") continue;
    it(`${what}: one JSON object on stderr with --json`, async () => {
      const { status, out, err } = await type(...words, "--json");
      expect([status, out]).toEqual([2, ""]);
      const { error } = JSON.parse(err) as { error: Record<string, string> };
      expect(err.indexOf("\n")).toBe(err.length - 1);
      expect(error["code"]).toBe(code);
      for (const key of ["what", "why", "next"]) expect(error[key]).toMatch(/\S/);
    });
  }

  it("points at the character of a syntax error", async () => {
    const { err } = await type("explain", "udp dst prt 53", "--json");
    expect(JSON.parse(err)).toMatchObject({
      error: { data: { expression: "udp dst prt 53", position: 12 } },
    });
  });
});

describe("explain", () => {
  it("says the flow in words and as a program", async () => {
    const { status, out } = await type("explain", "udp dst port 53");
    expect(status).toBe(0);
    expect(out).toContain("'udp dst port 53' means frames to UDP port 53\n");
    expect(out).toContain("(000) ldh      [12]\n");
  });

  it("gives tree and program as one document", async () => {
    const { out } = await type("explain", "udp", "dst", "port", "53", "--json");
    const document = JSON.parse(out) as { expression: string; tree: { kind: string }; program: unknown[] };
    expect(document).toMatchObject({ expression: "udp dst port 53", tree: { kind: "port" } });
    expect(document.program.length).toBeGreaterThan(5);
  });
});
