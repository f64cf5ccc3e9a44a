//! Shared memory mappings.
