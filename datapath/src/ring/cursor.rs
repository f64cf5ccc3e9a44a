//! The two ends of a ring, each with a shadow copy of the peer's index: only the copy is trusted.

use super::memory::Memory;
use super::sync::Ordering;

/// The end that fills slots. Owns the producer index; keeps a copy of the consumer's.
#[derive(Debug)]
pub struct Producer<M: Memory> {
    memory: M,
    /// Where the next slot is written; runs ahead of what is published.
    next: u32,
    /// What the peer may see: the last value stored to the producer index.
    published: u32,
    /// The peer's index when last looked at. Never more than `size` behind `next`.
    peer: u32,
    hostile: u64,
}

impl<M: Memory> Producer<M> {
    /// Takes the producing end. The shared producer index is read here once and never again.
    ///
    /// A consumer index that is not within the ring's size of it counts as hostile; the ring is then full.
    pub fn new(memory: M) -> Self {
        let next = memory.producer().load(Ordering::Relaxed);
        let peer = next.wrapping_sub(memory.size());
        let mut this = Self {
            memory,
            next,
            published: next,
            peer,
            hostile: 0,
        };
        this.refresh();
        this
    }

    /// Number of slots.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.memory.size()
    }

    /// Slots that can be written now, looking at the peer's index only when the copy shows fewer than `want`.
    #[inline]
    pub fn free(&mut self, want: u32) -> u32 {
        let free = self.free_by_copy();
        if free >= want {
            return free;
        }
        self.refresh();
        self.free_by_copy()
    }

    /// Writes the next slot, not yet visible to the peer. False when the ring is full by the last look.
    #[inline]
    pub fn push(&mut self, item: M::Item) -> bool {
        if self.free_by_copy() == 0 {
            return false;
        }
        self.memory.write(self.next, item);
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Makes everything pushed visible to the peer; gives how many slots that were.
    #[inline]
    pub fn publish(&mut self) -> u32 {
        let count = self.next.wrapping_sub(self.published);
        if count > 0 {
            self.memory.producer().store(self.next, Ordering::Release);
            self.published = self.next;
        }
        count
    }

    /// Slots the peer has not consumed, by a fresh look.
    pub fn outstanding(&mut self) -> u32 {
        self.refresh();
        self.published.wrapping_sub(self.peer)
    }

    /// The flag word (`XDP_RING_NEED_WAKEUP`).
    #[must_use]
    #[inline]
    pub fn flags(&self) -> u32 {
        self.memory.flags()
    }

    /// How often the peer's index was impossible.
    #[must_use]
    pub fn hostile(&self) -> u64 {
        self.hostile
    }

    #[inline]
    fn free_by_copy(&self) -> u32 {
        self.memory.size() - self.next.wrapping_sub(self.peer)
    }

    fn refresh(&mut self) {
        let peer = self.memory.consumer().load(Ordering::Acquire);
        // The consumer can have taken nothing that was not published, and never goes back.
        if self.published.wrapping_sub(peer) <= self.published.wrapping_sub(self.peer) {
            self.peer = peer;
        } else {
            self.hostile += 1;
        }
    }
}

/// The end that empties slots. Owns the consumer index; keeps a copy of the producer's.
#[derive(Debug)]
pub struct Consumer<M: Memory> {
    memory: M,
    /// The next slot to read; runs ahead of what is released.
    next: u32,
    /// The last value stored to the consumer index.
    released: u32,
    /// The peer's index when last looked at. Never more than `size` ahead of `released`.
    peer: u32,
    hostile: u64,
}

impl<M: Memory> Consumer<M> {
    /// Takes the consuming end. The shared consumer index is read here once and never again.
    pub fn new(memory: M) -> Self {
        let next = memory.consumer().load(Ordering::Relaxed);
        Self {
            memory,
            next,
            released: next,
            peer: next,
            hostile: 0,
        }
    }

    /// Number of slots.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.memory.size()
    }

    /// Slots that can be read now, looking at the peer's index only when the copy shows fewer than `want`.
    #[inline]
    pub fn available(&mut self, want: u32) -> u32 {
        let available = self.peer.wrapping_sub(self.next);
        if available >= want {
            return available;
        }
        self.refresh();
        self.peer.wrapping_sub(self.next)
    }

    /// Copies the next slot out. `None` when the ring is empty by the last look.
    #[inline]
    pub fn pop(&mut self) -> Option<M::Item> {
        if self.peer == self.next {
            return None;
        }
        let item = self.memory.read(self.next);
        self.next = self.next.wrapping_add(1);
        Some(item)
    }

    /// The slot `ahead` places after the next one, without consuming anything. `None` when it is not there
    /// by the last look.
    #[inline]
    #[must_use]
    pub fn peek(&self, ahead: u32) -> Option<M::Item> {
        (ahead < self.peer.wrapping_sub(self.next)).then(|| self.memory.read(self.next.wrapping_add(ahead)))
    }

    /// Gives every slot popped so far back to the producer; gives how many slots that were.
    #[inline]
    pub fn release(&mut self) -> u32 {
        let count = self.next.wrapping_sub(self.released);
        if count > 0 {
            self.memory.consumer().store(self.next, Ordering::Release);
            self.released = self.next;
        }
        count
    }

    /// The flag word (`XDP_RING_NEED_WAKEUP`).
    #[must_use]
    #[inline]
    pub fn flags(&self) -> u32 {
        self.memory.flags()
    }

    /// How often the peer's index was impossible.
    #[must_use]
    pub fn hostile(&self) -> u64 {
        self.hostile
    }

    fn refresh(&mut self) {
        let peer = self.memory.producer().load(Ordering::Acquire);
        // The producer can be ahead by what the ring holds, and never takes back what it published.
        let ahead = peer.wrapping_sub(self.released);
        if ahead <= self.memory.size() && ahead >= self.peer.wrapping_sub(self.released) {
            self.peer = peer;
        } else {
            self.hostile += 1;
        }
    }
}
