// Generated frames: protocols, VLAN tags, labels, fragments, extension headers, cut short anywhere.
import fc from "fast-check";

/** Values that expressions and packets are both made of, so that they often agree. */
export const POOL = {
  ip4: ["10.0.0.1", "10.0.0.2", "10.1.2.3", "192.168.1.1", "224.0.0.251", "255.255.255.255", "0.0.0.0"],
  ip6: ["::1", "fe80::1", "2001:db8::1", "2001:db8:0:1::2", "ff02::fb"],
  mac: ["02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb"],
  port: [22, 53, 80, 443, 6081, 1023, 1024, 65535, 0],
  vlan: [0, 1, 5, 100, 4095],
  label: [0, 5, 100, 0xfffff],
  session: [0, 5, 0x27],
} as const;

const bytes16 = (value: number): number[] => [(value >> 8) & 0xff, value & 0xff];
const bytes32 = (value: number): number[] => [...bytes16(value >>> 16), ...bytes16(value)];

export function ip4Bytes(text: string): number[] {
  return text.split(".").map(Number);
}

export function ip6Bytes(text: string): number[] {
  const [head, tail] = text.split("::") as [string, string?];
  const groups = (part: string): string[] => (part === "" ? [] : part.split(":"));
  const before = groups(head);
  const after = groups(tail ?? "");
  const zeros = new Array<string>(8 - before.length - after.length).fill("0");
  return [...before, ...zeros, ...after].flatMap((group) => bytes16(Number.parseInt(group, 16)));
}

export function macBytes(text: string): number[] {
  return text.split(":").map((byte) => Number.parseInt(byte, 16));
}

const port = fc.constantFrom(...POOL.port);
const payload = fc.array(fc.nat(255), { maxLength: 24 });

/** An IP protocol number and its bytes. */
const transport = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(fc.constantFrom(17, 6, 132), port, port, payload).map(segment) },
  fc.tuple(fc.constantFrom(1, 58, 2, 47, 50, 51, 103, 112, 0, 255), payload).map(([protocol, data]) => ({
    protocol,
    bytes: [
      ...([8, 128, 0, 3][data.length % 4]! > 0 ? [data.length % 2 === 0 ? 8 : 128] : [0]),
      0,
      0,
      0,
      ...data,
    ],
  })),
);

function segment([protocol, source, destination, data]: [number, number, number, number[]]): {
  protocol: number;
  bytes: number[];
} {
  const ports = [...bytes16(source), ...bytes16(destination)];
  if (protocol === 17) return { protocol, bytes: [...ports, ...bytes16(8 + data.length), 0, 0, ...data] };
  if (protocol === 132) return { protocol, bytes: [...ports, ...bytes32(1), ...bytes32(0), ...data] };
  const flags = data[0] ?? 2;
  return {
    protocol,
    bytes: [...ports, ...bytes32(1), ...bytes32(2), 0x50, flags, 1, 0, 0, 0, 0, 0, ...data],
  };
}

const ip4 = fc
  .record({
    source: fc.constantFrom(...POOL.ip4),
    destination: fc.constantFrom(...POOL.ip4),
    options: fc.constantFrom(0, 0, 0, 1, 10),
    // Sometimes a header length that cannot be.
    headerWords: fc.constantFrom(null, null, null, null, 0, 3, 15),
    fragment: fc.constantFrom(0, 0, 0, 0x4000, 0x2000, 0x2001, 0x1fff),
    inner: transport,
  })
  .map(({ source, destination, options, headerWords, fragment, inner }) => ({
    type: 0x0800,
    nibble: 4,
    bytes: [
      0x40 | (headerWords ?? 5 + options),
      0,
      ...bytes16(20 + options * 4 + inner.bytes.length),
      ...bytes16(7),
      ...bytes16(fragment),
      64,
      inner.protocol,
      ...bytes16(0),
      ...ip4Bytes(source),
      ...ip4Bytes(destination),
      ...new Array<number>(options * 4).fill(1),
      ...inner.bytes,
    ],
  }));

const ip6 = fc
  .record({
    source: fc.constantFrom(...POOL.ip6),
    destination: fc.constantFrom(...POOL.ip6),
    // Extension headers: hop-by-hop, routing, fragment, destination options, authentication.
    extensions: fc.array(fc.constantFrom(0, 43, 44, 60, 51), { maxLength: 2 }),
    inner: transport,
  })
  .map(({ source, destination, extensions, inner }) => {
    const chain = [...extensions, inner.protocol];
    const headers = extensions.flatMap((_, index) => [chain[index + 1]!, 0, 0, 0, 0, 0, 0, 0]);
    const bytes = [
      0x60,
      0,
      0,
      0,
      ...bytes16(headers.length + inner.bytes.length),
      chain[0]!,
      64,
      ...ip6Bytes(source),
      ...ip6Bytes(destination),
      ...headers,
      ...inner.bytes,
    ];
    return { type: 0x86dd, nibble: 6, bytes };
  });

const arp = fc
  .record({
    type: fc.constantFrom(0x0806, 0x8035),
    source: fc.constantFrom(...POOL.ip4),
    destination: fc.constantFrom(...POOL.ip4),
  })
  .map(({ type, source, destination }) => ({
    type,
    nibble: 0,
    bytes: [
      0,
      1,
      8,
      0,
      6,
      4,
      0,
      1,
      2,
      0,
      0,
      0,
      0,
      1,
      ...ip4Bytes(source),
      0,
      0,
      0,
      0,
      0,
      0,
      ...ip4Bytes(destination),
    ],
  }));

/** LLC and SNAP (IEEE 802.2), with the type field holding the length; and odd EtherTypes. */
const other = fc.oneof(
  fc
    .tuple(
      fc.constantFrom(
        [0x42, 0x42, 3],
        [0xfe, 0xfe, 3, 0x83, 0, 0, 0, 0x0f],
        [0xfe, 0xfe, 3, 0x82],
        [0xf0, 0xf0, 3],
        [0xe0, 0xe0, 3],
        [0xff, 0xff, 0],
        [0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37],
        [0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b],
        [0x06, 0x06, 1, 0],
        [0xaa, 0xaa, 0xaf],
      ),
      payload,
    )
    .map(([head, data]) => ({ type: head.length + data.length, nibble: 0, bytes: [...head, ...data] })),
  fc
    .tuple(
      fc.constantFrom(0x6003, 0x6004, 0x8137, 0x809b, 0x80f3, 0x8863, 0x9000, 0x88cc, 0x05dc, 0x05dd),
      payload,
    )
    .map(([type, data]) => ({ type, nibble: 0, bytes: data })),
);

type Layer = { type: number; nibble: number; bytes: number[] };

const network: fc.Arbitrary<Layer> = fc.oneof(
  { weight: 5, arbitrary: ip4 },
  { weight: 4, arbitrary: ip6 },
  { weight: 1, arbitrary: arp },
  { weight: 1, arbitrary: other },
);

const vlanTag = fc.tuple(
  fc.constantFrom(0x8100, 0x8100, 0x88a8, 0x9100),
  fc.constantFrom(...POOL.vlan),
  fc.nat(15),
);

function tagged(inner: Layer, [type, id, priority]: readonly [number, number, number]): Layer {
  return {
    type,
    nibble: 0,
    bytes: [...bytes16((priority << 12) | id), ...bytes16(inner.type), ...inner.bytes],
  };
}

function labelled(inner: Layer, labels: readonly number[]): Layer {
  const stack = labels.flatMap((label, index) =>
    bytes32(((label << 12) | (index === labels.length - 1 ? 0x100 : 0) | 64) >>> 0),
  );
  return { type: 0x8847, nibble: 0, bytes: [...stack, ...inner.bytes] };
}

function inSession(inner: Layer, session: number): Layer {
  const protocol = inner.type === 0x0800 ? 0x21 : inner.type === 0x86dd ? 0x57 : inner.type;
  return {
    type: 0x8864,
    nibble: 0,
    bytes: [
      0x11,
      0,
      ...bytes16(session),
      ...bytes16(inner.bytes.length + 2),
      ...bytes16(protocol),
      ...inner.bytes,
    ],
  };
}

const encapsulated: fc.Arbitrary<Layer> = fc.oneof(
  { weight: 8, arbitrary: network },
  fc
    .tuple(network, fc.array(fc.constantFrom(...POOL.label), { minLength: 1, maxLength: 3 }))
    .map(([inner, labels]) => labelled(inner, labels)),
  fc.tuple(network, fc.constantFrom(...POOL.session)).map(([inner, session]) => inSession(inner, session)),
);

/** A whole frame; sometimes cut short, down to nothing. */
export const frame: fc.Arbitrary<Uint8Array> = fc
  .record({
    destination: fc.constantFrom(...POOL.mac),
    source: fc.constantFrom(...POOL.mac),
    tags: fc.oneof(
      { weight: 4, arbitrary: fc.constant<[number, number, number][]>([]) },
      { weight: 3, arbitrary: fc.array(vlanTag, { minLength: 1, maxLength: 3 }) },
    ),
    inner: encapsulated,
    cut: fc.oneof({ weight: 4, arbitrary: fc.constant(null) }, fc.nat(1000)),
    padding: fc.boolean(),
  })
  .map(({ destination, source, tags, inner, cut, padding }) => {
    const outer: readonly (readonly [number, number, number])[] = tags;
    const layer = outer.reduceRight((all, tag) => tagged(all, tag), inner);
    const bytes = [...macBytes(destination), ...macBytes(source), ...bytes16(layer.type), ...layer.bytes];
    while (padding && bytes.length < 60) bytes.push(0);
    return Uint8Array.from(cut === null ? bytes : bytes.slice(0, cut % (bytes.length + 1)));
  });
