//! Node-API conversions of bifurcate: what JavaScript sees of `linux` and `datapath`, and nothing else.

// Node-API functions are registered only outside of tests, where nothing then uses them.
#![cfg_attr(test, allow(dead_code))]

mod background;
mod broker;
mod error;
mod kernel;
mod port;
