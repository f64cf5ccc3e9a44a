//! AF_XDP sockets as the kernel lists them: SOCK_DIAG_BY_FAMILY (include/uapi/linux/xdp_diag.h, CONFIG_XDP_SOCKETS_DIAG).

use super::Statistics;
use crate::Result;
use crate::netlink::message::{Attribute, Message, Received, attributes, u32_at};
use crate::netlink::socket::{Protocol, Socket};

/// One AF_XDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Diag {
    /// The socket's inode, by which /proc/PID/fd names its owner.
    pub inode: u32,
    /// The interface it is bound to; none while it is not bound.
    pub ifindex: Option<u32>,
    /// The queue it is bound to.
    pub queue: u32,
    /// Entries of its receive ring.
    pub rx_entries: Option<u32>,
    /// Entries of its transmit ring.
    pub tx_entries: Option<u32>,
    /// Entries of its fill ring; none of its own where it shares another's.
    pub fill_entries: Option<u32>,
    /// Entries of its completion ring.
    pub completion_entries: Option<u32>,
    /// Its frame memory.
    pub umem: Option<Umem>,
    /// What the kernel counted for it.
    pub statistics: Option<Statistics>,
}

/// The frame memory of a socket (struct xdp_diag_umem).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Umem {
    /// The kernel's number of it: sockets of the same number share it.
    pub id: u32,
    /// Bytes of a frame.
    pub chunk_size: u32,
    /// Bytes left free before each frame.
    pub headroom: u32,
    /// The device writes into it itself.
    pub zero_copy: bool,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// XDP_SHOW_INFO, RING_CFG, UMEM and STATS.
const SHOW: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 4;
const XDP_DIAG_INFO: u16 = 1;
const XDP_DIAG_RX_RING: u16 = 3;
const XDP_DIAG_TX_RING: u16 = 4;
const XDP_DIAG_UMEM: u16 = 5;
const XDP_DIAG_UMEM_FILL_RING: u16 = 6;
const XDP_DIAG_UMEM_COMPLETION_RING: u16 = 7;
const XDP_DIAG_STATS: u16 = 9;
const XDP_DU_F_ZEROCOPY: u32 = 1;
/// struct xdp_diag_msg: family, type, padding, inode, cookie of two words.
const ANSWER: usize = 16;

/// Every AF_XDP socket of the calling thread's namespace; none where the kernel was built without this facility.
pub fn sockets() -> Result<Option<Vec<Diag>>> {
    // struct xdp_diag_req: family, protocol, padding, inode, what to show, cookie of two words.
    let mut body = [0; 20];
    body[0] = libc::AF_XDP as u8;
    body[8..12].copy_from_slice(&SHOW.to_ne_bytes());
    let message = Message::new(SOCK_DIAG_BY_FAMILY, 0, &body);
    match Socket::open(Protocol::SockDiag)?.dump("netlink(SOCK_DIAG_BY_FAMILY)", &message, read) {
        Ok(all) => Ok(Some(all)),
        Err(error)
            if error.is_unsupported() || matches!(error.errno, libc::ENOENT | libc::EPROTONOSUPPORT) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read(received: &Received<'_>) -> Option<Diag> {
    if received.kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut diag = Diag {
        inode: u32_at(received.body, 4)?,
        ..Diag::default()
    };
    for attribute in attributes(received.body.get(ANSWER..)?) {
        let word = |at: usize| u32_at(attribute.value, at * 4);
        match attribute.kind {
            XDP_DIAG_INFO => {
                diag.ifindex = word(0).filter(|index| *index != 0);
                diag.queue = word(1).unwrap_or(0);
            }
            XDP_DIAG_RX_RING => diag.rx_entries = word(0),
            XDP_DIAG_TX_RING => diag.tx_entries = word(0),
            XDP_DIAG_UMEM_FILL_RING => diag.fill_entries = word(0),
            XDP_DIAG_UMEM_COMPLETION_RING => diag.completion_entries = word(0),
            XDP_DIAG_UMEM => {
                // size (64 bits), id, pages, chunk size, headroom, ifindex, queue, flags, references
                diag.umem = word(9).map(|_| Umem {
                    id: word(2).unwrap_or(0),
                    chunk_size: word(4).unwrap_or(0),
                    headroom: word(5).unwrap_or(0),
                    zero_copy: word(8).unwrap_or(0) & XDP_DU_F_ZEROCOPY != 0,
                });
            }
            XDP_DIAG_STATS => diag.statistics = read_statistics(&attribute),
            _ => {}
        }
    }
    Some(diag)
}

/// struct xdp_diag_stats has the fields in another order than struct xdp_statistics.
fn read_statistics(attribute: &Attribute<'_>) -> Option<Statistics> {
    let at = |number: usize| {
        let bytes = attribute.value.get(number * 8..number * 8 + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    Some(Statistics {
        rx_dropped: at(0)?,
        rx_invalid_descs: at(1)?,
        rx_ring_full: at(2)?,
        rx_fill_ring_empty_descs: at(3)?,
        tx_invalid_descs: at(4)?,
        tx_ring_empty_descs: at(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    fn answer() -> Vec<u8> {
        let words = |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_ne_bytes()).collect() };
        let stats: Vec<u8> = (1..=6u64).flat_map(u64::to_ne_bytes).collect();
        Message::new(SOCK_DIAG_BY_FAMILY, 0, &words(&[44, 4711, 0, 0]))
            .attribute(XDP_DIAG_INFO, &words(&[3, 1]))
            .attribute(XDP_DIAG_RX_RING, &words(&[2048]))
            .attribute(XDP_DIAG_UMEM, &words(&[0, 64, 9, 16, 2048, 32, 3, 1, 1, 2]))
            .attribute(XDP_DIAG_UMEM_FILL_RING, &words(&[4096]))
            .attribute(XDP_DIAG_STATS, &stats)
            .finish(1, 0)
    }

    #[test]
    fn an_answer_of_the_kernel() {
        let bytes = answer();
        let diag = read(&messages(&bytes).next().unwrap()).unwrap();
        assert_eq!((diag.inode, diag.ifindex, diag.queue), (4711, Some(3), 1));
        assert_eq!((diag.rx_entries, diag.tx_entries), (Some(2048), None));
        assert_eq!((diag.fill_entries, diag.completion_entries), (Some(4096), None));
        let umem = Umem {
            id: 9,
            chunk_size: 2048,
            headroom: 32,
            zero_copy: true,
        };
        assert_eq!(diag.umem, Some(umem));
        let statistics = diag.statistics.unwrap();
        assert_eq!((statistics.rx_invalid_descs, statistics.tx_invalid_descs), (2, 5));
        assert_eq!(
            (statistics.rx_ring_full, statistics.rx_fill_ring_empty_descs),
            (3, 4)
        );
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let bytes = answer();
        let received = messages(&bytes).next().unwrap();
        for length in 0..received.body.len() {
            let short = Received {
                body: &received.body[..length],
                ..received
            };
            assert!(read(&short).is_none_or(|diag| diag.inode == 4711), "{length}");
        }
    }
}
