// The block of 32-bit words that a queue shares with its handler: where each number of a frame stands in it.
// The other side of it, and who writes what: datapath/src/engine/remote/block.rs.

/** Frames a queue hands over in one turn, at most. */
export const BATCH_MAX = 256;
/** Words of the header; the first row begins after them. */
export const HEADER_WORDS = 16;
/** Words of a row, one row a frame. */
export const ROW_WORDS = 8;
/** The first word of the release rows, by which kept frames are ended: as many as rows, of the same shape. */
export const RELEASE_WORD = HEADER_WORDS + BATCH_MAX * ROW_WORDS;
/** Words of the whole block. */
export const BLOCK_WORDS = RELEASE_WORD + BATCH_MAX * ROW_WORDS;
/** The header's last words have the shape of a row: where a cursor stands that is on no frame. */
export const NO_ROW = HEADER_WORDS - ROW_WORDS;

/** Word of the header: how many rows are filled. */
export const HEADER_COUNT = 0;
/** Word of the header: how many release rows are filled. The native side sets it back to 0. */
export const HEADER_RELEASES = 1;

/** Words of a row. */
export const ROW_OFFSET = 0;
export const ROW_LENGTH = 1;
export const ROW_VERDICT = 2;
export const ROW_PORT = 3;
/** 0: not available. */
export const ROW_HASH = 4;
/** -1: not available. */
export const ROW_VLAN = 5;
/** Nanoseconds, low and high word; both 0: not available. */
export const ROW_TIME_LOW = 6;
export const ROW_TIME_HIGH = 7;

/** What becomes of a frame. */
export const VERDICT_DROP = 0;
export const VERDICT_SEND = 1;
export const VERDICT_PASS = 2;
export const VERDICT_KEEP = 3;
