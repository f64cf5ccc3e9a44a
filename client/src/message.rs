//! The messages between client and broker (PROTOCOL.md, versions 1 to 3). Fields that are not known are ignored.

use bifurcate_linux::pci::Address;
use serde::{Deserialize, Serialize};

use crate::error::Refusal;

/// The versions of the protocol that are spoken here, the one that is liked best first.
pub const VERSIONS: [u32; 3] = [3, 2, 1];
/// The version that cards leased whole came with.
pub const CARDS_SINCE: u32 = 3;
/// Most bytes of a message from a broker.
pub const LONGEST: usize = 1_048_576;

/// What a lease may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transmit {
    /// Nothing.
    None,
    /// Answers to its flow, from the card's addresses: the kernel checks each frame.
    Own,
    /// Anything.
    Raw,
}

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantedMechanism {
    /// A queue where the policy and the card give one, else a port.
    Auto,
    /// A lease port.
    Port,
    /// A queue of the card.
    Queue,
    /// The card, whole, by VFIO: see [`Request::card`].
    Vfio,
}

/// What was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// A lease port: the far end of a veth pair.
    Port,
    /// Queues of the card.
    Queue,
    /// The card, whole, by VFIO.
    Vfio,
}

/// Whether the card may write into the pool itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroCopy {
    /// An error where it cannot.
    Require,
    /// Where it can.
    Prefer,
    /// Never.
    Off,
}

/// What the pool stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolPages {
    /// Huge pages where there are some.
    Auto,
    /// Huge pages, or an error.
    Huge,
    /// Ordinary pages.
    Ordinary,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The card, in the broker's network namespace; one that is leased whole by its PCI address, as `0000:01:00.0`.
    pub device: String,
    /// pcap-filter(7) expressions, 1 to 16: a frame of any of them is leased.
    pub flows: Vec<String>,
    /// A port, or a queue of the card.
    pub mechanism: WantedMechanism,
    /// What it may send.
    pub transmit: Transmit,
    /// A way back into the kernel for frames of the flow.
    pub pass: bool,
    /// Sockets.
    pub queues: u32,
    /// Frames of the pool, of all queues together: 64 to 524,288.
    pub frames: u32,
    /// Bytes of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Entries of each ring, a power of two from 32 to 32,768.
    pub ring_size: u32,
    /// Whether the card may write into the pool itself.
    pub zero_copy: ZeroCopy,
    /// Have the broker set busy polling, which a client may not. Of a whole card: never sleep, where it else sleeps
    /// until an interrupt of the card's.
    pub busy_poll: bool,
    /// What the pool stands in.
    pub pages: PoolPages,
}

impl Request {
    /// A lease of one queue that may answer its flow, with 4,096 frames and rings of 2,048 entries.
    #[must_use]
    pub fn new(device: &str, flows: &[&str]) -> Request {
        Request {
            device: device.to_owned(),
            flows: flows.iter().map(|flow| (*flow).to_owned()).collect(),
            mechanism: WantedMechanism::Auto,
            transmit: Transmit::Own,
            pass: false,
            queues: 1,
            frames: 4096,
            frame_size: 2048,
            ring_size: 2048,
            zero_copy: ZeroCopy::Prefer,
            busy_poll: false,
            pages: PoolPages::Auto,
        }
    }

    /// A lease of the whole card at a PCI address, to be driven by a driver of this crate: one queue, 4,096 frames and
    /// rings of 512 slots (64 to 4,096). Nothing checks what it sends, so the policy has to give `raw`.
    #[must_use]
    pub fn card(address: &str) -> Request {
        // In full, as the policy writes it; what is no address is refused by Broker::lease.
        let device = address.parse::<Address>();
        Request {
            device: device.map_or_else(|_| address.to_owned(), |address| address.to_string()),
            mechanism: WantedMechanism::Vfio,
            transmit: Transmit::Raw,
            ring_size: 512,
            ..Request::new(address, &[])
        }
    }
}

/// Where the memory of a card that is leased whole is for the card: byte `n` of its file at `iova + n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CardMemory {
    /// The I/O address of its first byte.
    pub iova: u64,
    /// Where in it the rings begin.
    pub rings_at: u64,
    /// Bytes of the rings.
    pub ring_bytes: u64,
}

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// The lease's name.
    pub id: String,
    /// The card.
    pub device: String,
    /// A port, or a queue of the card.
    pub mechanism: Mechanism,
    /// The interface that the sockets are bound to.
    pub port: String,
    /// Its queues that they are bound to; empty from a broker that does not say: 0 and upwards.
    #[serde(default)]
    pub port_queues: Vec<u32>,
    /// Bytes; 0 of a card that is leased whole.
    pub mtu: u32,
    /// The card's Ethernet address. Of a card that is leased whole the broker does not say it: the driver here does.
    pub mac: String,
    /// Sockets.
    pub queues: u32,
    /// What it may send.
    pub transmit: Transmit,
    /// Whether frames can be passed into the kernel.
    pub pass: bool,
    /// Frames of the pool.
    pub frames: u32,
    /// Bytes of a frame.
    pub frame_size: u32,
    /// Frames of 68 KiB behind them.
    pub jumbo_frames: u32,
    /// Entries of each ring.
    pub ring_size: u32,
    /// Frames in each fill ring at the handover.
    pub filled: u32,
    /// The card writes into the pool itself.
    pub zero_copy: bool,
    /// The rings' flags word is kept.
    pub need_wakeup: bool,
    /// Frames longer than one of the pool arrive.
    pub multi_buffer: bool,
    /// Busy polling is on.
    pub busy_poll: bool,
    /// Senders behind the card leave checksums and segmentation undone.
    pub left_to_card: bool,
    /// Whose view of the flow ends.
    pub bypasses: Vec<String>,
    /// Steps down from what was asked for, in words.
    pub notes: Vec<String>,
    /// Of a card that is leased whole, and of no other.
    #[serde(default)]
    pub card: Option<CardMemory>,
}

/// A lease in a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// `granted`, `draining` and what else PROTOCOL.md lists.
    pub state: String,
    /// The card.
    pub device: String,
    /// Its flows.
    pub flows: Vec<String>,
    /// Whose it is.
    pub uid: u32,
    /// The process that has it.
    pub pid: u32,
}

/// What a client sends.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum ToBroker<'a> {
    /// The first message.
    Hello { versions: [u32; 3], name: &'a str },
    /// Asks for a lease.
    Lease { request: u32, lease: &'a Request },
    /// Gives one back.
    Return { request: u32, lease: &'a str },
    /// Still has it, says it to a broker that came later.
    Resume { request: u32, lease: &'a str },
    /// Takes one from whoever has it.
    Release { request: u32, lease: &'a str },
    /// Which are there, from `after` on?
    List {
        request: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'a str>,
    },
}

/// What a broker sends.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum FromBroker {
    Welcome {
        version: u32,
        broker: String,
        pid: u32,
        netns: u64,
    },
    Granted {
        request: u32,
        lease: Box<Granted>,
    },
    Done {
        request: u32,
    },
    Leases {
        request: u32,
        leases: Vec<Listed>,
        /// There are more: what to ask for the next page with.
        #[serde(default)]
        next: Option<String>,
    },
    Revoked {
        lease: String,
        why: String,
    },
    Error {
        request: Option<u32>,
        error: Refusal,
    },
}

/// Reads one message; the error says what is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<FromBroker, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// A message as it is sent.
pub(crate) fn encode(message: &ToBroker<'_>) -> Vec<u8> {
    // Numbers, texts and lists of them: nothing in there that JSON has no form for.
    serde_json::to_vec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_what_the_protocol_says() {
        let lease = Request::new("eth0", &["udp dst port 53"]);
        let bytes = encode(&ToBroker::Lease {
            request: 7,
            lease: &lease,
        });
        let expected = r#"{"type":"lease","request":7,"lease":{"device":"eth0","flows":["udp dst port 53"],"mechanism":"auto","transmit":"own","pass":false,"queues":1,"frames":4096,"frameSize":2048,"ringSize":2048,"zeroCopy":"prefer","busyPoll":false,"pages":"auto"}}"#;
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn a_request_for_a_card_has_no_flow_and_its_address_in_full() {
        let lease = Request::card("1:0.0");
        let bytes = encode(&ToBroker::Lease {
            request: 1,
            lease: &lease,
        });
        let expected = r#"{"type":"lease","request":1,"lease":{"device":"0000:01:00.0","flows":[],"mechanism":"vfio","transmit":"raw","pass":false,"queues":1,"frames":4096,"frameSize":2048,"ringSize":512,"zeroCopy":"prefer","busyPoll":false,"pages":"auto"}}"#;
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn fields_of_a_later_version_are_ignored_and_missing_ones_named() {
        let later =
            br#"{"type":"welcome","version":1,"broker":"9","pid":1,"netns":4026531840,"mood":"good"}"#;
        assert!(matches!(parse(later), Ok(FromBroker::Welcome { version: 1, .. })));
        let less = br#"{"type":"welcome","version":1,"broker":"9","pid":1}"#;
        assert!(parse(less).unwrap_err().contains("netns"));
        assert!(
            parse(br#"{"type":"gift","request":1}"#)
                .unwrap_err()
                .contains("gift")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_message_that_was_spoilt_makes_it_panic(at in 0usize..200, byte in any::<u8>()) {
            let mut message = br#"{"type":"error","request":null,"error":{"code":"E_LEASE_DENIED","what":"a","why":"b","next":"c"}}"#.to_vec();
            let at = at % message.len();
            message[at] = byte;
            let _ = parse(&message);
        }
    }
}
