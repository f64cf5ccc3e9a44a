//! What the halves of a queue need of the way to their device: a socket to another process, or a PCI card.

use std::os::fd::BorrowedFd;

use crate::device::State;

/// The way to a device, as one half of a queue has it. `index` is the number of a ring: 2n receives for pair n, and
/// 2n + 1 sends (VIRTIO 1.2, section 5.1.2).
pub(super) trait Transport: Send {
    /// Bytes of the pool, from its first on, that the device reaches.
    fn reach(&self) -> u32;

    /// Where byte `offset` of the pool is, as the device knows it.
    fn address(&self, offset: u32) -> u64;

    /// Writes the indirect table of id `id` of ring `index`, which is `packed` or split: a header of zeros, and `len`
    /// bytes at `addr`. Gives where the device finds it, and its bytes.
    fn indirect(&self, index: usize, packed: bool, id: u16, addr: u64, len: u32) -> (u64, u32);

    /// Tells the device that something is available in ring `index`.
    fn kick(&self, index: usize);

    /// What becomes readable when the device has used something of ring `index`. `None`: poll again at once.
    fn ready_fd(&self, index: usize) -> Option<BorrowedFd<'_>>;

    /// Forgets what the device has told of ring `index` so far.
    fn lower(&self, index: usize);

    /// Lets the device's next word through, where it is held back after each.
    fn unmask(&self) {}

    /// A poll is over; `idle`: it found nothing.
    fn polled(&mut self, idle: bool) {
        let _ = idle;
    }

    /// How the device is; `up`: as far as its ring knows, it is there.
    fn state(&self, up: bool) -> State;
}
