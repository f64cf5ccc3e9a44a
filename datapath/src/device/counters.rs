//! What a queue has counted, readable from any thread while one thread counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// The counters of one half of a queue, or of one loop. Written by one thread, read by any.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The values of [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The values now.
            #[must_use]
            pub fn totals(&self) -> Totals {
                Totals { $($name: self.$name.get(),)* }
            }
        }

        impl std::ops::AddAssign for Totals {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Frames that arrived.
    received
    /// Their bytes.
    received_bytes
    /// Frames that the device took for sending.
    sent
    /// Their bytes.
    sent_bytes
    /// Frames that a verdict dropped.
    dropped
    /// Frames given to the kernel.
    passed
    /// Times that no free frame was there to receive into or to copy to.
    no_frames
    /// Frames that found a transmit ring full.
    ring_full
    /// Descriptors or indices that a device or peer cannot have meant: dropped.
    invalid_descriptor
    /// Frames longer than the device or the pool can hold: dropped.
    too_long
    /// Verdicts, lengths or ports of a handler that cannot be: dropped.
    handler_invalid
    /// Frames that a handler keeps now: they came, and have not ended yet. Not a sum over time as the others are.
    kept
    /// Frames that the device gave back with an error: not sent, or not received whole.
    device_error
    /// Frames that a copy for somebody who watches (a capture file, tcpdump) had no room for.
    tap_lost
}

/// A number that one thread raises and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it. Only one thread at a time may: it is a load and a store, without a locked instruction.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Sets it: for a number that also falls. Only one thread at a time may.
    #[inline]
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Its value now.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of both halves of a queue.
#[derive(Clone, Debug)]
pub struct QueueCounters {
    /// The queue's number on its device.
    pub index: u32,
    /// Of the receiving half.
    pub rx: Arc<Counters>,
    /// Of the sending half.
    pub tx: Arc<Counters>,
}

impl QueueCounters {
    /// Both halves together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = self.rx.totals();
        totals += self.tx.totals();
        totals
    }
}
