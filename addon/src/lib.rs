//! Node-API conversions of bifurcate: what JavaScript sees of `linux` and `datapath`, and nothing else.

mod error;
mod kernel;
mod port;
