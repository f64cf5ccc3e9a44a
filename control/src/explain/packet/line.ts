// A packet written as a line, e.g. `udp 192.0.2.1:4242 > 192.0.2.2:53`; errors point at the character.
import { BifurcateError } from "../../errors.js";
import { caretLines } from "../../steering/rules/flow-error.js";
import { headerLength } from "./frame.js";
import { octetsOf, type Packet } from "./packet.js";

const PROTOCOLS = ["udp", "tcp", "sctp", "icmp", "icmp6", "ip", "arp"] as const;
type Word = (typeof PROTOCOLS)[number];
const WITH_PORTS: readonly string[] = ["udp", "tcp", "sctp"];
/** The longest frame that can be: an IP packet of 65,535 bytes behind Ethernet and a tag. */
const LONGEST = 65_535 + 18;
const FORM =
  "Write for example 'udp 192.0.2.1:4242 > 192.0.2.2:53', or '[2001:db8::1]:4242' for IPv6 with a port.";

interface Token {
  readonly text: string;
  readonly at: number;
}

/**
 * Reads a line: PROTOCOL SOURCE > DESTINATION, then any of `vlan N`, `from MAC`, `to MAC`, `len BYTES`.
 * @throws E_PACKET_SYNTAX; its data has `packet`, `position` and `caret`.
 */
export function parsePacket(line: string): Packet {
  const tokens = [...line.matchAll(/[^\s>]+|>/g)].map((match): Token => ({
    text: match[0],
    at: match.index,
  }));
  const end: Token = { text: "", at: line.length };
  let next = 0;
  const take = (): Token => tokens[next++] ?? end;
  const fail = (token: Token, why: string): never => {
    const caret = caretLines(line, { start: token.at, end: token.at + Math.max(1, token.text.length) });
    throw new BifurcateError("E_PACKET_SYNTAX", {
      what: `packet '${line}'`,
      why: `${why} (at character ${token.at + 1})\n${caret}`,
      next: FORM,
      data: { packet: line, position: token.at, caret },
    });
  };
  const first = take();
  const word = PROTOCOLS.find((each) => each === first.text.toLowerCase());
  if (word === undefined)
    return fail(
      first,
      first === end ? "there is no packet" : `'${first.text}' is none of ${PROTOCOLS.join(", ")}`,
    );
  const source = endpoint(word, take(), fail);
  const arrow = take();
  if (arrow.text !== ">") return fail(arrow, "here '>' stands between source and destination");
  const target = take();
  const destination = endpoint(word, target, fail);
  if (source.version !== destination.version)
    return fail(target, "source and destination are of different IP versions");
  if (word === "icmp6" && source.version !== 6) return fail(target, "icmp6 goes between IPv6 addresses");
  if (word === "arp" && source.version !== 4) return fail(target, "arp asks for IPv4 addresses");
  const options = readOptions(take, end, fail);
  const protocol = word === "icmp6" ? "icmp" : word === "ip" ? "other" : word;
  const packet: Packet = {
    text: line.trim(),
    protocol,
    version: word === "arp" ? null : source.version,
    source: source.address,
    destination: destination.address,
    sourcePort: source.port,
    destinationPort: destination.port,
    vlan: options.vlan,
    sourceMac: options.from,
    destinationMac: word === "arp" ? (options.to ?? "ff:ff:ff:ff:ff:ff") : options.to,
    length: 60,
  };
  const least = headerLength(packet);
  const { length } = options;
  if (length !== null && length.bytes < least) {
    return fail(length.token, `the headers alone have ${least} bytes`);
  }
  return { ...packet, length: length?.bytes ?? Math.max(60, least) };
}

interface Endpoint {
  readonly address: string;
  readonly version: 4 | 6;
  readonly port: number | null;
}

function endpoint(word: Word, token: Token, fail: (token: Token, why: string) => never): Endpoint {
  const ports = WITH_PORTS.includes(word);
  if (token.text === "" || token.text === ">") return fail(token, "an address is missing");
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(token.text);
  const plain = /^([^:]*)(?::([^:]*))?$/.exec(token.text);
  const [address, port] =
    bracketed !== null
      ? [bracketed[1]!, bracketed[2]]
      : plain !== null
        ? [plain[1]!, plain[2]]
        : [token.text, undefined];
  const octets = octetsOf(address);
  const inside = bracketed === null ? 0 : 1;
  if (octets === null) {
    return fail({ text: address, at: token.at + inside }, `'${address}' is no IP address`);
  }
  const version = octets.length === 4 ? 4 : 6;
  if (!ports) {
    if (port !== undefined) return fail(token, `${word} has no ports`);
    return { address, version, port: null };
  }
  const at = token.at + token.text.length - (port?.length ?? 0);
  if (port === undefined) {
    const how = version === 6 ? `[${address}]:PORT` : `${address}:PORT`;
    return fail({ text: "", at }, `${word} needs a port: ${how}`);
  }
  const number = /^\d{1,5}$/.test(port) ? Number(port) : Number.NaN;
  if (!(number <= 65_535)) return fail({ text: port, at }, `'${port}' is no port: 0 to 65535`);
  return { address, version, port: number };
}

interface Options {
  readonly vlan: number | null;
  readonly from: string | null;
  readonly to: string | null;
  readonly length: { readonly bytes: number; readonly token: Token } | null;
}

function readOptions(take: () => Token, end: Token, fail: (token: Token, why: string) => never): Options {
  let options: Options = { vlan: null, from: null, to: null, length: null };
  for (let word = take(); word !== end; word = take()) {
    const value = take();
    const number = /^\d{1,5}$/.test(value.text) ? Number(value.text) : Number.NaN;
    if (word.text === "vlan") {
      if (!(number <= 4094)) return fail(value, "a VLAN is a number from 0 to 4094");
      options = { ...options, vlan: number };
    } else if (word.text === "len") {
      if (!(number <= LONGEST)) return fail(value, `a frame has at most ${LONGEST} bytes`);
      options = { ...options, length: { bytes: number, token: value } };
    } else if (word.text === "from" || word.text === "to") {
      if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(value.text)) {
        return fail(value, "an Ethernet address is six pairs of hex digits, e.g. 02:00:00:00:00:01");
      }
      options = { ...options, [word.text]: value.text.toLowerCase() };
    } else {
      return fail(word, `'${word.text}' is none of vlan, from, to, len`);
    }
  }
  return options;
}
