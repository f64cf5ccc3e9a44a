//! libFuzzer's way into `bifurcate_fuzz::device_ring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bifurcate_fuzz::device_ring(data);
});
