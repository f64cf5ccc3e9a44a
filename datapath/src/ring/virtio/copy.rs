//! Copies between frames and the other end's memory, and hints to fetch it early.

/// Copies `len` bytes. For packets: short ones go in two overlapping steps of vector registers, without a call.
///
/// # Safety
/// Both ranges are mapped for `len` bytes and do not overlap. Either may be written by another process meanwhile: what
/// is copied is then any mixture, and every byte pattern is a valid byte.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: in each arm the steps cover exactly `len` bytes: the second begins where it ends at the end, and `len`
    // is at least one step and at most two.
    unsafe {
        match len {
            64 => step::<64>(from, to),
            32..64 => {
                step::<32>(from, to);
                step::<32>(from.add(len - 32), to.add(len - 32));
            }
            65..=128 => {
                step::<64>(from, to);
                step::<64>(from.add(len - 64), to.add(len - 64));
            }
            16..32 => {
                step::<16>(from, to);
                step::<16>(from.add(len - 16), to.add(len - 16));
            }
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// Copies a fixed number of bytes, which the compiler turns into its widest registers.
#[inline(always)]
unsafe fn step<const N: usize>(from: *const u8, to: *mut u8) {
    // SAFETY: the caller vouches for N bytes at both places; u8 arrays need no alignment.
    unsafe {
        to.cast::<[u8; N]>()
            .write_unaligned(from.cast::<[u8; N]>().read_unaligned())
    }
}

/// Copies what is at `from`, in the other end's memory, into `to`.
///
/// # Safety
/// `from` is mapped readable for `to.len()` bytes.
#[inline]
pub unsafe fn copy_in(from: *const u8, to: &mut [u8]) {
    // SAFETY: the caller vouches for `from`; `to` is exclusively ours, so they do not overlap.
    unsafe { copy(from, to.as_mut_ptr(), to.len()) }
}

/// Copies `from` to `to`, in the other end's memory.
///
/// # Safety
/// `to` is mapped writable for `from.len()` bytes, and no memory that Rust holds a reference to.
#[inline]
pub unsafe fn copy_out(from: &[u8], to: *mut u8) {
    // SAFETY: the caller vouches for `to`.
    unsafe { copy(from.as_ptr(), to, from.len()) }
}

/// Asks for the line at `at`, which is going to be read.
#[inline(always)]
pub fn prefetch_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it faults on no address and changes no memory.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for the line at `at`, which is going to be written: from the other core's cache in one step, where a fetch for
/// reading and then the right to write would be two.
#[inline(always)]
pub fn prefetch_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint as above; a processor without it treats it as no operation (AMD64 manual, volume 3, PREFETCHW).
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
