//! Frames that a handler keeps between turns: who names a chunk that is not kept gets nothing.

use std::sync::Arc;

use crate::frame::{Cache, Frame, Umem};

/// Kept frames, one place a chunk. The table is made when the first frame is kept, and never again.
#[derive(Debug)]
pub(super) struct Kept {
    umem: Arc<Umem>,
    frames: Vec<Option<Frame>>,
    count: usize,
}

impl Kept {
    pub(super) fn new(umem: &Arc<Umem>) -> Kept {
        Kept {
            umem: Arc::clone(umem),
            frames: Vec::new(),
            count: 0,
        }
    }

    /// Keeps a frame of the pool.
    #[cold]
    pub(super) fn put(&mut self, frame: Frame, cache: &mut Cache) {
        if self.frames.is_empty() {
            let chunks = self.umem.frames() + self.umem.jumbo_frames();
            self.frames.resize_with(chunks as usize, || None);
        }
        let chunk = self.umem.chunk_of(frame.offset());
        let Some(place) = chunk.and_then(|chunk| self.frames.get_mut(chunk as usize)) else {
            return cache.give(frame);
        };
        // A chunk belongs to one frame, so the place is empty; were it not, nothing is lost.
        match place.replace(frame) {
            Some(before) => cache.give(before),
            None => self.count += 1,
        }
    }

    /// Ends the keeping of the frame in whose chunk `offset` lies. `None` when no such frame is kept.
    pub(super) fn take(&mut self, offset: i32) -> Option<Frame> {
        let chunk = self.umem.chunk_of(u32::try_from(offset).ok()?)?;
        let frame = self.frames.get_mut(chunk as usize)?.take()?;
        self.count -= 1;
        Some(frame)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.count > 0 {
            let mut cache = Cache::new(&self.umem);
            for frame in self.frames.drain(..).flatten() {
                cache.give(frame);
            }
        }
    }
}
