//! What a broker and its clients need beside the kernel's own objects: local sockets, descriptors, leases.

mod card;
mod lease;
mod seqpacket;

pub(crate) use seqpacket::Descriptor;
