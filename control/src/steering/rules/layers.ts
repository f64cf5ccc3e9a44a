// Where headers start, at one place of an expression: vlan, mpls and pppoes move them for all that follows.
import { equal, not, and, or, compare, type Block } from "./blocks.js";
import { flowError } from "./flow-error.js";
import type { Span } from "./tree.js";
import { ETHER_PROTOCOLS } from "./words.js";

/** Highest value of the type field that is a length (IEEE 802.3, clause 3.2.6). */
const MAX_LENGTH = 1500;
/** PPP protocol numbers (IANA) of an EtherType or service access point, as libpcap maps them. */
const PPP_NUMBERS: ReadonlyMap<number, number> = new Map([
  [ETHER_PROTOCOLS["ip"]!, 0x21],
  [ETHER_PROTOCOLS["ip6"]!, 0x57],
  [ETHER_PROTOCOLS["decnet"]!, 0x27],
  [ETHER_PROTOCOLS["atalk"]!, 0x29],
  [0x0600, 0x25],
  [ETHER_PROTOCOLS["iso"]!, 0x23],
  [ETHER_PROTOCOLS["stp"]!, 0x31],
  [ETHER_PROTOCOLS["ipx"]!, 0x2b],
]);
const VLAN_TYPES = [0x8100, 0x88a8, 0x9100] as const;
const MPLS_TYPE = 0x8847;
const PPP_MPLS = 0x0281;
const PPPOE_SESSION = 0x8864;

/** Offsets are in bytes from the start of the frame. */
export class Layers {
  #link: "ether" | "ppp" = "ether";
  #linkHeader = 0;
  #typeField = 12;
  #payload = 14;
  /** From the link's payload to the network header: grows with MPLS labels. */
  #network = 0;
  /** The same for OSI, which stands behind the LLC header. */
  #osi = 3;
  #labels = 0;

  constructor(readonly source: string) {}

  /** Start of the link header, for `ether[..]`. */
  get link(): number {
    return this.#linkHeader;
  }

  /** Start of the network header. */
  get network(): number {
    return this.#payload + this.#network;
  }

  /** Start of the OSI network header. */
  get osi(): number {
    return this.#payload + this.#osi;
  }

  /** Start of the LLC header. */
  get llc(): number {
    return this.#payload;
  }

  /** Whether MPLS labels lie in between: then only IP can be told apart. */
  get labelled(): boolean {
    return this.#labels > 0;
  }

  /** Fails when the link layer here is not Ethernet. */
  needEthernet(span: Span, what: string): void {
    if (this.#link === "ether") return;
    throw flowError("E_FLOW_SYNTAX", this.source, span, `${what} inside a PPP session`);
  }

  /** The frame's type field says its length. */
  isLength(): Block {
    return not(compare(this.#typeField, 2, "JGT", MAX_LENGTH));
  }

  /** The payload is of this protocol: an EtherType, or a service access point up to 1500. */
  carries(protocol: number, span: Span): Block {
    if (this.#labels > 0) return this.#carriesOverMpls(protocol, span);
    if (this.#link === "ppp") return equal(this.#typeField, 2, PPP_NUMBERS.get(protocol) ?? protocol);
    const llc = this.#payload;
    switch (protocol) {
      case ETHER_PROTOCOLS["iso"]:
      case ETHER_PROTOCOLS["netbeui"]:
      case 0x06: // The service access point of ARPANET IP (libpcap's LLCSAP_IP).
        return and(this.isLength(), equal(llc, 2, (protocol << 8) | protocol));
      case ETHER_PROTOCOLS["ipx"]: {
        const raw = or(equal(llc, 1, protocol), equal(llc, 2, 0xffff));
        const framed = or(this.#snap(0x000000, 0x8137), raw);
        return or(equal(this.#typeField, 2, 0x8137), and(this.isLength(), framed));
      }
      case ETHER_PROTOCOLS["atalk"]:
        return or(equal(this.#typeField, 2, protocol), and(this.isLength(), this.#snap(0x080007, protocol)));
      case ETHER_PROTOCOLS["aarp"]:
        return or(equal(this.#typeField, 2, protocol), and(this.isLength(), this.#snap(0x000000, protocol)));
      default:
        if (protocol <= MAX_LENGTH) return and(this.isLength(), equal(llc, 1, protocol));
        return equal(this.#typeField, 2, protocol);
    }
  }

  /** A SNAP header with this organisation and protocol (IEEE 802, clause 9.5). */
  #snap(organisation: number, protocol: number): Block {
    const tail = (((organisation & 0xffff) << 16) | protocol) >>> 0;
    const head = (0xaaaa0300 | (organisation >>> 16)) >>> 0;
    return and(equal(this.#payload + 4, 4, tail), equal(this.#payload, 4, head));
  }

  #carriesOverMpls(protocol: number, span: Span): Block {
    const nibble =
      protocol === ETHER_PROTOCOLS["ip"] ? 0x40 : protocol === ETHER_PROTOCOLS["ip6"] ? 0x60 : null;
    if (nibble === null) {
      throw flowError(
        "E_FLOW_UNSUPPORTED",
        this.source,
        span,
        "behind MPLS labels only IP can be told apart",
      );
    }
    const bottomOfStack = equal(this.network - 2, 1, 0x01, 0x01);
    return and(bottomOfStack, equal(this.network, 1, nibble, 0xf0));
  }

  /** The test for a VLAN tag; afterwards everything stands four bytes further on. */
  enterVlan(id: number | null, span: Span): Block {
    if (this.#labels > 0)
      throw flowError("E_FLOW_SYNTAX", this.source, span, "a VLAN tag behind MPLS labels");
    this.needEthernet(span, "a VLAN tag");
    const [first, second, third] = VLAN_TYPES;
    const tagged = or(this.carries(first, span), this.carries(second, span), this.carries(third, span));
    const block = id === null ? tagged : and(tagged, equal(this.#payload, 2, id, 0x0fff));
    this.#typeField += 4;
    this.#payload += 4;
    return block;
  }

  /** The test for an MPLS label; afterwards the network header stands four bytes further on. */
  enterMpls(label: number | null, span: Span): Block {
    let block: Block;
    if (this.#labels > 0) block = equal(this.network - 2, 1, 0x00, 0x01);
    else block = this.carries(this.#link === "ppp" ? PPP_MPLS : MPLS_TYPE, span);
    // RFC 3032: the label is the upper 20 bits.
    if (label !== null) block = and(block, equal(this.network, 4, (label << 12) >>> 0, 0xfffff000));
    this.#network += 4;
    this.#osi += 4;
    this.#labels++;
    return block;
  }

  /** The test for a PPPoE session frame (RFC 2516); afterwards the link layer is PPP. */
  enterPppoe(session: number | null, span: Span): Block {
    let block = this.carries(PPPOE_SESSION, span);
    if (session !== null) block = and(block, equal(this.#payload, 4, session, 0x0000ffff));
    this.#linkHeader = this.network + 6;
    this.#link = "ppp";
    this.#typeField = this.#linkHeader;
    this.#payload = this.#linkHeader + 2;
    this.#network = 0;
    this.#osi = 0;
    return block;
  }
}
