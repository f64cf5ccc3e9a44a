//! Memory to memory: [`null`] makes frames and swallows them (for benchmarks), [`pair`] connects two ports (for
//! tests).

mod null;
mod pair;

#[cfg(test)]
mod tests;

pub use null::{NullConfig, Order, null};
pub use pair::pair;
