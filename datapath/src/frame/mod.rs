//! The frame pool (UMEM), the owned frame, a thread's cache of free frames, and the batch.
//!
//! ```text
//! UMEM:  | frame 0 | frame 1 | ... | frame N-1 | jumbo 0 | ... | jumbo M-1 |
//!         <----- chunk area: what a device gets --> <- only ever copied to ->
//!
//! free frames:  depot (one lock, whole bundles)  <->  Cache (one a thread, last in first out)
//!
//! DATA OWNERSHIP
//!   a chunk is, at any time, one of: free (in the depot or in one Cache), a Frame (owned by whoever holds it),
//!   lent to a device (an Owner's number stands in the ownership table).
//!   Only Owner::reclaim makes a Frame out of a lent chunk, and only when that Owner lent it.
//! ```

mod batch;
mod cache;
pub mod checksum;
pub mod headers;
mod lent;
mod owner;
pub mod segment;
mod umem;

#[cfg(test)]
pub(crate) mod test_frames;
#[cfg(test)]
mod tests;

pub use batch::{BATCH_DEFAULT, BATCH_MAX, Batch, Metadata, Verdict};
pub use cache::Cache;
pub use lent::Lent;
pub use owner::Owner;
pub(crate) use umem::map_pages;
pub use umem::{HEADROOM, JUMBO_SIZE, PageKind, Pages, Umem, UmemConfig};

/// A frame: the right to one chunk of the pool, and where in it the packet lies.
///
/// It is moved, never copied, so that it cannot be sent twice. Dropping one without [`Cache::give`] loses its
/// chunk until the pool goes: there is no `Drop`, since it would need a way to its pool in every frame.
#[must_use = "a frame that is not given back is lost to its pool"]
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Offset of the first byte in the pool.
    offset: u32,
    /// Bytes. Invariant: `offset..offset + len` lies in one chunk of the pool with number `pool`.
    len: u32,
    /// The number of the pool it came from.
    pool: u32,
}

impl Frame {
    /// Offset of the first byte from the start of the pool.
    #[must_use]
    #[inline]
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds no bytes.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of its pool ([`Umem::id`]).
    #[must_use]
    #[inline]
    pub fn pool(&self) -> u32 {
        self.pool
    }
}
