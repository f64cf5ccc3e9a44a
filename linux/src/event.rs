//! Descriptors to wait on.
