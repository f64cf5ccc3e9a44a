// Words of pcap-filter(7) that are understood and not supported, each with the reason.

const GROUPS: readonly (readonly [reason: string, words: readonly string[]])[] = [
  ["it needs the host's name in two tables", ["gateway"]],
  ["it needs a loop, which neither the kernel's filters nor a verified program may have", ["protochain"]],
  ["a frame does not say in which direction it travels", ["inbound", "outbound"]],
  ["a frame does not say on which interface it travels", ["ifindex"]],
  ["its inner headers stand at no fixed offset", ["geneve"]],
  ["Ethernet has no radio header", ["radio"]],
  [
    "it is about IEEE 802.11 frames, and this is Ethernet",
    ["type", "subtype", "dir", "addr1", "addr2", "addr3", "addr4", "ra", "ta"],
  ],
  [
    "it is about ATM cells, and this is Ethernet",
    [
      ...["lane", "metac", "bcc", "oam", "oamf4", "oamf4ec", "oamf4sc", "sc", "ilmic", "vpi", "vci"],
      ...["connectmsg", "metaconnect"],
    ],
  ],
  [
    "it is about OpenBSD's packet filter log, and this is Ethernet",
    ["ifname", "rset", "rnr", "srnr", "reason", "action"],
  ],
  [
    "it is about SS7 links, and this is Ethernet",
    [
      ...["fisu", "lssu", "msu", "hfisu", "hlssu", "hmsu", "sio", "opc", "dpc", "sls"],
      ...["hsio", "hopc", "hdpc", "hsls"],
    ],
  ],
];

/** The reason, by keyword. docs/filter.md lists them; a test holds it to this table. */
export const UNSUPPORTED: Readonly<Record<string, string>> = Object.fromEntries(
  GROUPS.flatMap(([reason, words]) => words.map((word) => [word, reason])),
);
