//! Hostile peers and ordinary traffic on heap rings.
