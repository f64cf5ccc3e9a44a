//! Runs a classic BPF program over a packet, as libpcap's `bpf_filter` does. Knows no syntax.
