//! libFuzzer's way into `bifurcate_fuzz::card`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bifurcate_fuzz::card(data);
});
