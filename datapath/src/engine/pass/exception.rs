//! The way between the kernel's stack and a card taken whole: a TAP that stands where the card's interface stood.
//!
//! ```text
//!   card rx --pass--> write(TAP queue) -> the TAP's interface: IP, ARP, sockets
//!   card tx <-------- read(TAP queue)  <- what they send
//! ```

use bifurcate_linux::netlink::link;
use bifurcate_linux::tap::{Tap, TapQueue, VnetHeader};
use bifurcate_linux::{Error, Result};

use crate::engine::PassPath;
use crate::frame::Batch;

/// Frames of the kernel's that one turn sends at most: the card's own come first.
const FRAMES_A_TURN: usize = 32;

/// Bytes of the longest frame that a turn takes: an MTU of 9,000, an Ethernet header, two VLAN tags.
const LONGEST: usize = 9000 + 14 + 8;

/// The TAP's queue for one queue of the card.
#[derive(Debug)]
pub struct ExceptionPath {
    queue: TapQueue,
    buffer: Box<[u8]>,
}

impl ExceptionPath {
    /// Makes a TAP called `name` with the card's address and MTU in the calling thread's namespace, up; gives its index
    /// and a way for each of the card's queues. It is gone with the last of them.
    ///
    /// # Errors
    /// `EBUSY`, `EEXIST`: there is an interface of that name. `EPERM`: no CAP_NET_ADMIN. `ENOENT`: no TUN.
    pub fn open(name: &str, mac: link::Mac, mtu: u32, queues: u32) -> Result<(u32, Vec<ExceptionPath>)> {
        let tap = Tap::open(name, queues)?;
        let change = link::Change {
            up: Some(true),
            mtu: Some(mtu),
            mac: Some(mac),
            ..link::Change::default()
        };
        link::set(tap.ifindex, &change)?;
        let ways = tap.queues.into_iter().map(|queue| ExceptionPath {
            queue,
            buffer: vec![0; LONGEST].into(),
        });
        Ok((tap.ifindex, ways.collect()))
    }
}

impl PassPath for ExceptionPath {
    fn pass(&mut self, bytes: &[u8]) -> Result<()> {
        self.queue
            .inject(VnetHeader::COMPLETE, bytes)
            .map_err(|errno| Error::new("writev", String::new(), errno))
    }

    fn take(&mut self, batch: &mut Batch) -> usize {
        let mut taken = 0;
        while taken < FRAMES_A_TURN.min(batch.room() + taken) {
            let Some(len) = self.queue.take(&mut self.buffer) else {
                break;
            };
            // What the pool has no room for is lost, as in a full ring.
            if let Some(frame) = batch.cache_mut().copy_in(&self.buffer[..len.min(LONGEST)])
                && let Err(frame) = batch.push(frame)
            {
                batch.cache_mut().give(frame);
            }
            taken += 1;
        }
        taken
    }
}
