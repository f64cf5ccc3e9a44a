// The block of 32-bit words that a queue shares with its handler: where each number of a frame stands in it.
// The native side of it is datapath/src/engine/remote.rs; a test of the addon compares the two.

/** Frames a queue hands over in one turn, at most. */
export const BATCH_MAX = 256;
/** Words of the header; the first row begins after them. */
export const HEADER_WORDS = 16;
/** Words of a row, one row a frame. */
export const ROW_WORDS = 8;
/** Words of the whole block. */
export const BLOCK_WORDS = HEADER_WORDS + BATCH_MAX * ROW_WORDS;
/** The header's last words have the shape of a row: where a cursor stands that is on no frame. */
export const NO_ROW = HEADER_WORDS - ROW_WORDS;

/** Word of the header: how many rows are filled. */
export const HEADER_COUNT = 0;

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
