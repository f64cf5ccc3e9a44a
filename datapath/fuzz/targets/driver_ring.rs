//! libFuzzer's way into `bifurcate_fuzz::driver_ring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bifurcate_fuzz::driver_ring(data);
});
