//! The pcapng format (IETF draft-ietf-opsawg-pcapng), as much as a capture of one interface needs, in the
//! machine's byte order.

/// Section Header Block (section 4.1), and its magic that tells the byte order.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Interface Description Block (section 4.2).
const INTERFACE_DESCRIPTION: u32 = 1;
/// Enhanced Packet Block (section 4.3).
const ENHANCED_PACKET: u32 = 6;
/// Interface Statistics Block (section 4.6).
const INTERFACE_STATISTICS: u32 = 5;

/// LINKTYPE_ETHERNET (tcpdump.org/linktypes.html).
const LINKTYPE_ETHERNET: u16 = 1;

const OPTION_END: u16 = 0;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;

/// Which way a frame went (epb_flags, bits 0 and 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound = 1,
    Outbound = 2,
}

/// The head of a file: a section and one interface, with time in nanoseconds.
pub(super) fn head(interface: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut body = Vec::new();
    body.extend(BYTE_ORDER_MAGIC.to_ne_bytes());
    body.extend(1u16.to_ne_bytes());
    body.extend(0u16.to_ne_bytes());
    // The section's length is not known.
    body.extend(u64::MAX.to_ne_bytes());
    block(&mut out, SECTION_HEADER, &body);
    body.clear();
    body.extend(LINKTYPE_ETHERNET.to_ne_bytes());
    body.extend(0u16.to_ne_bytes());
    // No limit on a packet's length.
    body.extend(0u32.to_ne_bytes());
    option(&mut body, IF_NAME, interface.as_bytes());
    option(&mut body, IF_TSRESOL, &[9]);
    option(&mut body, OPTION_END, &[]);
    block(&mut out, INTERFACE_DESCRIPTION, &body);
    out
}

/// Bytes that [`packet`] adds.
pub(super) fn packet_length(bytes: &[u8], snaplen: usize) -> usize {
    // Type, length, interface, time (2), captured, original; data; flags (2), end of options, length.
    28 + bytes.len().min(snaplen).next_multiple_of(4) + 16
}

/// Adds one packet, `nanoseconds` after 1970, cut to `snaplen` bytes.
pub(super) fn packet(
    out: &mut Vec<u8>,
    nanoseconds: u64,
    direction: Direction,
    bytes: &[u8],
    snaplen: usize,
) {
    let captured = &bytes[..bytes.len().min(snaplen)];
    let total = packet_length(bytes, snaplen) as u32;
    for word in [
        ENHANCED_PACKET,
        total,
        0,
        (nanoseconds >> 32) as u32,
        nanoseconds as u32,
        captured.len() as u32,
        bytes.len() as u32,
    ] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.extend_from_slice(captured);
    out.extend_from_slice(&[0; 3][..captured.len().next_multiple_of(4) - captured.len()]);
    option(out, EPB_FLAGS, &(direction as u32).to_ne_bytes());
    option(out, OPTION_END, &[]);
    out.extend_from_slice(&total.to_ne_bytes());
}

/// The last block: how many frames the capture missed.
pub(super) fn statistics(nanoseconds: u64, missed: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0u32.to_ne_bytes());
    body.extend(((nanoseconds >> 32) as u32).to_ne_bytes());
    body.extend((nanoseconds as u32).to_ne_bytes());
    option(&mut body, ISB_IFDROP, &missed.to_ne_bytes());
    option(&mut body, OPTION_END, &[]);
    let mut out = Vec::new();
    block(&mut out, INTERFACE_STATISTICS, &body);
    out
}

/// Adds a block around `body`, whose length is a multiple of four.
fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let total = body.len() as u32 + 12;
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&total.to_ne_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&total.to_ne_bytes());
}

/// Adds an option, padded to four bytes. A value beyond 65,535 bytes is cut.
fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&code.to_ne_bytes());
    out.extend_from_slice(&(value.len() as u16).to_ne_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(&[0; 3][..value.len().next_multiple_of(4) - value.len()]);
}
