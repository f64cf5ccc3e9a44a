//! The control queue: commands that the device answers (VIRTIO 1.2, section 5.1.6.5). Only while a card is started.

use std::time::{Duration, Instant};

use bifurcate_linux::{Error, Result};

use crate::frame::{Cache, Frame};
use crate::ring::virtio::{INDIRECT, Piece, table};

use super::super::queue::AnyRing;

/// A command: its class, its number, and what it is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    class: u8,
    number: u8,
    name: &'static str,
}

/// VIRTIO_NET_CTRL_RX_PROMISC (section 5.1.6.5.1): one byte, on or off.
pub(super) const PROMISCUOUS: Command = Command {
    class: 0,
    number: 0,
    name: "promiscuous mode",
};
/// VIRTIO_NET_CTRL_MAC_ADDR_SET (section 5.1.6.5.2): six bytes.
pub(super) const ADDRESS: Command = Command {
    class: 1,
    number: 1,
    name: "the MAC address",
};
/// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET (section 5.1.6.5.5): two bytes.
pub(super) const PAIRS: Command = Command {
    class: 4,
    number: 0,
    name: "the number of queue pairs",
};

/// How long the device may take for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of the indirect table: the command and the answer.
const TABLE: usize = 32;
/// Bytes of the longest command, its data included.
const COMMAND: usize = 16;
/// What the answer's byte is before the device writes it: neither OK (0) nor ERR (1).
const UNANSWERED: u8 = 0xaa;

const EPROTO: i32 = 71;
const ETIMEDOUT: i32 = 110;

/// The driver's half of the control queue.
pub(super) struct Control<'a> {
    pub(super) ring: AnyRing,
    /// Notifies the device.
    pub(super) notify: &'a dyn Fn(),
    /// Where byte `offset` of the pool is, as the device knows it.
    pub(super) address: &'a dyn Fn(u32) -> u64,
}

impl Control<'_> {
    /// Has the device do what `command` says, by way of `frame`, which holds table, command and answer. After an error
    /// the frame may still be the device's: it is not to be used before the device was reset.
    ///
    /// # Errors
    /// `ETIMEDOUT` when it does not answer; `EPROTO` when it refuses.
    pub(super) fn run(
        &mut self,
        command: Command,
        data: &[u8],
        cache: &Cache,
        frame: &mut Frame,
    ) -> Result<()> {
        let Command { class, number, name } = command;
        let refused = |why: String, errno| {
            let why = format!("set {name} by the control queue: {why}");
            Err(Error::new("virtio", why, errno))
        };
        // The table is aligned to 16 (section 2.7).
        let pad = frame.offset().next_multiple_of(16) - frame.offset();
        let at = (self.address)(frame.offset() + pad);
        let len = 2 + data.len();
        let room = pad as usize + TABLE + COMMAND + 1;
        if len > COMMAND || !cache.set_len(frame, room) {
            return refused("the command is too long".to_owned(), EPROTO);
        }
        let bytes = &mut cache.bytes_mut(frame)[pad as usize..];
        let ring = self.ring.as_dyn();
        let command = Piece {
            addr: at + TABLE as u64,
            len: len as u32,
            write: false,
        };
        let answer = Piece {
            addr: at + (TABLE + COMMAND) as u64,
            len: 1,
            write: true,
        };
        for (to, [addr, rest]) in bytes
            .chunks_exact_mut(16)
            .zip(table([command, answer], ring.is_packed()))
        {
            to[..8].copy_from_slice(&addr.to_le_bytes());
            to[8..].copy_from_slice(&rest.to_le_bytes());
        }
        bytes[TABLE] = class;
        bytes[TABLE + 1] = number;
        bytes[TABLE + 2..TABLE + len].copy_from_slice(data);
        bytes[TABLE + COMMAND] = UNANSWERED;
        ring.add(at, TABLE as u32, INDIRECT);
        ring.publish();
        if ring.wants_kick() {
            (self.notify)();
        }
        let end = Instant::now() + PATIENCE;
        let used = loop {
            // Before it is looked for: a thread that stood still beyond the end looks once more.
            let late = Instant::now() > end;
            match ring.pop_used() {
                Some(used) => break used,
                None if late => {
                    return refused(format!("no answer in {PATIENCE:?}"), ETIMEDOUT);
                }
                None => std::thread::sleep(Duration::from_micros(50)),
            }
        };
        ring.free(used.id);
        match cache.bytes(frame)[room - 1] {
            0 => Ok(()),
            answer => refused(format!("the device answers {answer}"), EPROTO),
        }
    }
}
