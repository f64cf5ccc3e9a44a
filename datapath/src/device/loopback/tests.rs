//! Null and pair ports by their traits alone.
