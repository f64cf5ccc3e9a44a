//! Runs a classic BPF program over a packet, as libpcap's `bpf_filter` does. Knows no syntax.
//!
//! The program comes from outside and the packet from the network: the first is checked once, in
//! [`Program::new`], so that no program can loop or leave itself; the second is bounds-checked at every load.

mod program;
mod run;

#[cfg(test)]
mod tests;

pub use program::{INSTRUCTIONS_MAX, Instruction, Program, ProgramError};
