//! rtnetlink and generic netlink.
