//! What a broker and its clients need beside the kernel's own objects: local sockets, descriptors, leases, a lock.

mod card;
mod lease;
mod lock;
mod seqpacket;

pub(crate) use seqpacket::Descriptor;
