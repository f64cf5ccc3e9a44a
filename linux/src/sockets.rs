//! TCP and UDP sockets of a namespace.
