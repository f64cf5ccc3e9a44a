//! BPF maps, programs and links.
