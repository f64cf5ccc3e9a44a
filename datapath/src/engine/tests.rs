//! Loops over loopback ports.
