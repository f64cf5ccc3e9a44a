//! A wrong I/O address, once: what a driver with a fault would write into a descriptor. In test builds alone.

use std::sync::atomic::{AtomicU64, Ordering};

/// The address that the next descriptor gets; 0 for none.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Gives the next frame that a card is told of, `address` instead of its own. Not 0.
pub fn address_next_as(address: u64) {
    NEXT.store(address, Ordering::SeqCst);
}

pub(super) fn take() -> Option<u64> {
    Some(NEXT.swap(0, Ordering::SeqCst)).filter(|address| *address != 0)
}
