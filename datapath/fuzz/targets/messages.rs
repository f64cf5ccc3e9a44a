//! libFuzzer's way into `bifurcate_fuzz::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bifurcate_fuzz::messages(data);
});
