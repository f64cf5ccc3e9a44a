//! What a ring stands on: memory mapped from a socket, or the heap.

use super::sync::{Arc, AtomicU32, Ordering, UnsafeCell};

/// A value that may stand in a slot: plain numbers.
///
/// # Safety
/// Every bit pattern of the type must be a valid value of it, since a peer writes the bits.
pub unsafe trait Plain: Copy + Send + 'static {}

// SAFETY: every pattern of 32 bits is a u32.
unsafe impl Plain for u32 {}
// SAFETY: every pattern of 64 bits is a u64.
unsafe impl Plain for u64 {}

/// One packet as an RX or TX ring describes it (`struct xdp_desc`, linux/if_xdp.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Offset of the first byte in the UMEM.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// Flags: `XDP_PKT_CONTD` and others.
    pub options: u32,
}

// SAFETY: three integers without padding (8 + 4 + 4 bytes, repr(C)); every bit pattern is valid.
unsafe impl Plain for Descriptor {}

/// The memory of one ring: two indices, slots and a flag word.
///
/// `slot` numbers are free running; an implementation masks them, so every number is in bounds.
pub trait Memory: Send {
    /// What a slot holds.
    type Item: Plain;
    /// Number of slots, a power of two. Never changes.
    fn size(&self) -> u32;
    /// The producer's index.
    fn producer(&self) -> &AtomicU32;
    /// The consumer's index.
    fn consumer(&self) -> &AtomicU32;
    /// The flag word (`XDP_RING_NEED_WAKEUP`), 0 where there is none.
    fn flags(&self) -> u32;
    /// Copies the value out of a slot, once.
    fn read(&self, slot: u32) -> Self::Item;
    /// Writes a slot.
    fn write(&mut self, slot: u32, item: Self::Item);
}

/// A ring in memory mapped from elsewhere. `K` keeps that memory mapped and is dropped with the ring.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct Mapped<T, K> {
    producer: *const AtomicU32,
    consumer: *const AtomicU32,
    flags: *const AtomicU32,
    slots: *mut T,
    mask: u32,
    _keep: K,
}

// SAFETY: the pointers reach shared memory that `_keep` holds mapped, which is tied to no thread; T and K are
// Send themselves.
#[cfg(not(loom))]
unsafe impl<T: Plain, K: Send> Send for Mapped<T, K> {}

#[cfg(not(loom))]
impl<T: Plain, K: Send> Mapped<T, K> {
    /// A ring of `size` slots at the given places; `flags` may be null. `None` when `size` is not a power of
    /// two, or larger than 2^31.
    ///
    /// # Safety
    /// `producer`, `consumer` and `flags` (when not null) point to aligned u32s, `slots` to `size` aligned
    /// values of `T`, all mapped readable and writable for as long as `keep` lives. Only one cursor on this
    /// side writes each index.
    #[must_use]
    pub unsafe fn new(
        producer: *mut u32,
        consumer: *mut u32,
        flags: *mut u32,
        slots: *mut T,
        size: u32,
        keep: K,
    ) -> Option<Self> {
        size.is_power_of_two().then(|| Self {
            producer: producer.cast_const().cast(),
            consumer: consumer.cast_const().cast(),
            flags: flags.cast_const().cast(),
            slots,
            mask: size - 1,
            _keep: keep,
        })
    }
}

#[cfg(not(loom))]
impl<T: Plain, K: Send> Memory for Mapped<T, K> {
    type Item = T;

    fn size(&self) -> u32 {
        // A mask of 2^31 - 1 at most comes from a power of two, so this cannot overflow.
        self.mask.wrapping_add(1)
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: aligned and mapped while `_keep` lives (contract of `new`); an atomic may be shared with
        // whoever else has the memory.
        unsafe { &*self.producer }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { &*self.consumer }
    }

    fn flags(&self) -> u32 {
        if self.flags.is_null() {
            return 0;
        }
        // SAFETY: not null, so as in `producer`.
        unsafe { (*self.flags).load(Ordering::Relaxed) }
    }

    #[inline]
    fn read(&self, slot: u32) -> T {
        // SAFETY: masked, so within the `size` slots that `new` was promised. Volatile: the peer may write at
        // any time, the value is copied once and only the copy is used; T accepts every bit pattern.
        unsafe { self.slots.add((slot & self.mask) as usize).read_volatile() }
    }

    #[inline]
    fn write(&mut self, slot: u32, item: T) {
        // SAFETY: as in `read`; no reference into the slots exists anywhere.
        unsafe { self.slots.add((slot & self.mask) as usize).write_volatile(item) }
    }
}

/// A ring on the heap, for tests and models: both ends in this process.
#[derive(Debug, Clone)]
pub struct Heap<T>(Arc<HeapRing<T>>);

#[derive(Debug)]
struct HeapRing<T> {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    slots: Box<[UnsafeCell<T>]>,
}

// SAFETY: slots are reached only through the cursors, which hand them over with acquire and release (the loom
// model checks it); the indices are atomics.
unsafe impl<T: Plain> Sync for HeapRing<T> {}
// SAFETY: T is Send and nothing here is tied to a thread.
unsafe impl<T: Plain> Send for HeapRing<T> {}

impl<T: Plain + Default> Heap<T> {
    /// A ring of `size` slots, both indices at `start`. `None` when `size` is not a power of two.
    #[must_use]
    pub fn new(size: u32, start: u32) -> Option<Self> {
        size.is_power_of_two().then(|| {
            Self(Arc::new(HeapRing {
                producer: AtomicU32::new(start),
                consumer: AtomicU32::new(start),
                flags: AtomicU32::new(0),
                slots: (0..size).map(|_| UnsafeCell::new(T::default())).collect(),
            }))
        })
    }

    /// Writes an index as a hostile peer would: the producer's.
    pub fn force_producer(&self, index: u32) {
        self.0.producer.store(index, Ordering::Release);
    }

    /// Writes an index as a hostile peer would: the consumer's.
    pub fn force_consumer(&self, index: u32) {
        self.0.consumer.store(index, Ordering::Release);
    }

    /// Sets the flag word, as the kernel would.
    pub fn set_flags(&self, flags: u32) {
        self.0.flags.store(flags, Ordering::Relaxed);
    }
}

impl<T: Plain> Memory for Heap<T> {
    type Item = T;

    fn size(&self) -> u32 {
        self.0.slots.len() as u32
    }

    fn producer(&self) -> &AtomicU32 {
        &self.0.producer
    }

    fn consumer(&self) -> &AtomicU32 {
        &self.0.consumer
    }

    fn flags(&self) -> u32 {
        self.0.flags.load(Ordering::Relaxed)
    }

    fn read(&self, slot: u32) -> T {
        let cell = &self.0.slots[slot as usize & (self.0.slots.len() - 1)];
        // SAFETY: a cursor reads only slots that the producer handed over with release and that it has not
        // given back; so nobody writes it now.
        cell.with(|p| unsafe { *p })
    }

    fn write(&mut self, slot: u32, item: T) {
        let cell = &self.0.slots[slot as usize & (self.0.slots.len() - 1)];
        // SAFETY: a cursor writes only slots that the consumer gave back with release; so nobody reads it now.
        cell.with_mut(|p| unsafe { *p = item });
    }
}
