//! The block of 32-bit words that a queue shares with a handler in another language. The other side of it is
//! `bifurcate/src/layout.ts`.
//!
//! ```text
//! word 0..16            header: [0] rows filled, [1] release rows filled, [2] frame size, [3] rows at most,
//!                       [8..16] the shape of a row, for a cursor that stands on no frame
//! then 256 rows         one a received frame
//! then 256 release rows one a kept frame that is to be ended
//!
//! row, 8 words          [0] offset in the pool  [1] length  [2] verdict  [3] out port
//!                       [4] RX hash, 0 n/a      [5] VLAN, -1 n/a  [6] time low  [7] time high, both 0 n/a
//! release row           [0] any offset in the kept frame  [1] length  [2] drop, send or pass  [3] out port
//!
//! DATA OWNERSHIP
//!   [0], [2], [3], rows [0] and [4..8]   written by Rust each turn, never read back
//!   [1], rows [1..4], release rows       written by the handler; read once a turn, each number checked
//!   Rust writes [1] of the header back to 0 when it has done what the release rows say
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::{BATCH_MAX, Metadata};

/// Words of the header.
pub const HEADER_WORDS: usize = 16;
/// Words of a row, and of a release row.
pub const ROW_WORDS: usize = 8;
/// The first word of the release rows.
pub const RELEASE_WORD: usize = HEADER_WORDS + BATCH_MAX * ROW_WORDS;
/// Words of the whole block.
pub const BLOCK_WORDS: usize = RELEASE_WORD + BATCH_MAX * ROW_WORDS;

const PAIRS: usize = 2;

/// The block. Two words are one atomic, since a row is written and read in pairs; being atomic, the block may
/// be written by anybody at any time.
#[derive(Clone, Debug)]
pub struct Block(Arc<[AtomicU64]>);

/// What a handler wrote into a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) offset: i32,
    pub(super) len: i32,
    pub(super) verdict: i32,
    pub(super) port: i32,
}

impl Block {
    pub(super) fn new(frame_size: u32) -> Block {
        let block = Block((0..BLOCK_WORDS / PAIRS).map(|_| AtomicU64::new(0)).collect());
        block.set(1, frame_size as i32, BATCH_MAX as i32);
        for row in 0..BATCH_MAX {
            block.clear_metadata(row);
        }
        block
    }

    /// The memory: [`BLOCK_WORDS`] 32-bit words in the machine's order, for as long as the Arc lives.
    #[must_use]
    pub fn memory(&self) -> &Arc<[AtomicU64]> {
        &self.0
    }

    /// Says how many rows are filled. The release rows are not touched.
    #[inline]
    pub(super) fn set_count(&self, rows: usize) {
        let (_, releases) = self.get(0);
        self.set(0, rows as i32, releases);
    }

    pub(super) fn releases(&self) -> i32 {
        self.get(0).1
    }

    pub(super) fn clear_releases(&self) {
        let (rows, _) = self.get(0);
        self.set(0, rows, 0);
    }

    /// Fills rows from the first on: offset, length, verdict `Drop`, port 0.
    #[inline]
    pub(super) fn write_rows(&self, places: impl Iterator<Item = (u32, u32)>) {
        let rows = self.0[HEADER_WORDS / PAIRS..].chunks_exact(ROW_WORDS / PAIRS);
        for (row, (offset, len)) in rows.zip(places) {
            row[0].store(join(offset as i32, len as i32), Ordering::Relaxed);
            row[1].store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn write_metadata(&self, row: usize, metadata: Metadata) {
        let pair = pair_of_row(row) + 2;
        let vlan = metadata.vlan.map_or(-1, i32::from);
        let time = metadata.timestamp.unwrap_or(0);
        self.set(pair, metadata.hash.unwrap_or(0) as i32, vlan);
        self.set(pair + 1, time as i32, (time >> 32) as i32);
    }

    pub(super) fn clear_metadata(&self, row: usize) {
        self.write_metadata(row, Metadata::default());
    }

    /// What stands in row `row`, copied once.
    #[inline]
    pub(super) fn row(&self, row: usize) -> Row {
        self.at(pair_of_row(row))
    }

    /// The verdict and port that every row has, of as many rows as there are sizes, when the length of each is that
    /// size, which is at least `shortest`. Looks at all of them without a branch: the usual batch is of one kind.
    #[inline]
    pub(super) fn same(&self, sizes: impl Iterator<Item = u32>, shortest: u32) -> Option<Row> {
        let first = self.row(0);
        let wanted = join(first.verdict, first.port);
        let (mut differ, mut short) = (0u64, false);
        let rows = self.0[HEADER_WORDS / PAIRS..].chunks_exact(ROW_WORDS / PAIRS);
        for (row, size) in rows.zip(sizes) {
            let (_, len) = split(row[0].load(Ordering::Relaxed));
            differ |= row[1].load(Ordering::Relaxed) ^ wanted;
            differ |= u64::from(len as u32 ^ size);
            short |= size < shortest;
        }
        (differ == 0 && !short).then_some(first)
    }

    /// What stands in release row `row`, copied once.
    pub(super) fn release(&self, row: usize) -> Row {
        self.at((RELEASE_WORD + row * ROW_WORDS) / PAIRS)
    }

    #[inline]
    fn at(&self, pair: usize) -> Row {
        // One check for both pairs.
        let Some([place, end]) = self.0.get(pair..pair + 2) else {
            return Row::default();
        };
        let (offset, len) = split(place.load(Ordering::Relaxed));
        let (verdict, port) = split(end.load(Ordering::Relaxed));
        Row {
            offset,
            len,
            verdict,
            port,
        }
    }

    #[inline]
    fn set(&self, pair: usize, first: i32, second: i32) {
        self.0[pair].store(join(first, second), Ordering::Relaxed);
    }

    #[inline]
    fn get(&self, pair: usize) -> (i32, i32) {
        split(self.0[pair].load(Ordering::Relaxed))
    }
}

/// Two words, the first at the lower address.
#[inline]
fn join(first: i32, second: i32) -> u64 {
    let (low, high) = if cfg!(target_endian = "little") {
        (first, second)
    } else {
        (second, first)
    };
    u64::from(low as u32) | u64::from(high as u32) << 32
}

#[inline]
fn split(pair: u64) -> (i32, i32) {
    let (low, high) = (pair as u32 as i32, (pair >> 32) as u32 as i32);
    if cfg!(target_endian = "little") {
        (low, high)
    } else {
        (high, low)
    }
}

#[inline]
fn pair_of_row(row: usize) -> usize {
    (HEADER_WORDS + row * ROW_WORDS) / PAIRS
}

#[cfg(test)]
impl Block {
    /// Writes word `word` as a handler does.
    pub(super) fn poke(&self, word: usize, value: i32) {
        let (first, second) = self.get(word / PAIRS);
        if word.is_multiple_of(PAIRS) {
            self.set(word / PAIRS, value, second);
        } else {
            self.set(word / PAIRS, first, value);
        }
    }

    /// Reads word `word` as a handler does.
    pub(super) fn peek(&self, word: usize) -> i32 {
        let (first, second) = self.get(word / PAIRS);
        if word.is_multiple_of(PAIRS) { first } else { second }
    }
}
