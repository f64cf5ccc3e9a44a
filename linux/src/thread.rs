//! The calling thread: which cores it may run on, its name, its processor time.

use std::time::Duration;

use rustix::thread::CpuSet;

use crate::{Error, Result};

/// Lets the calling thread run on `core` alone (numbered as in `/proc/cpuinfo`).
///
/// # Errors
/// `EINVAL` when there is no such core, or the process may not use it (its cpuset).
pub fn pin(core: u32) -> Result<()> {
    let mut set = CpuSet::new();
    let index = core as usize;
    if index >= CpuSet::MAX_CPU {
        return Err(Error {
            call: "sched_setaffinity",
            args: format!("core={core}"),
            errno: libc::EINVAL,
        });
    }
    set.set(index);
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|e| Error::rustix("sched_setaffinity", format!("core={core}"), e))
}

/// The cores that the calling thread may run on, in rising order.
///
/// # Errors
/// Whatever sched_getaffinity(2) reports.
pub fn cores() -> Result<Vec<u32>> {
    let set = rustix::thread::sched_getaffinity(None)
        .map_err(|e| Error::rustix("sched_getaffinity", "this thread", e))?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .map(|core| core as u32)
        .collect())
}

/// Names the calling thread as `ps -L` and `top -H` show it; the kernel keeps the first 15 bytes.
///
/// # Errors
/// Whatever prctl(PR_SET_NAME) reports.
pub fn name(name: &str) -> Result<()> {
    let kept: Vec<u8> = name.bytes().filter(|&b| b != 0).take(15).collect();
    let kept = std::ffi::CString::new(kept).expect("zero bytes were taken out");
    rustix::thread::set_name(&kept).map_err(|e| Error::rustix("prctl", format!("PR_SET_NAME {name}"), e))
}

/// Processor time of the whole process so far, user and system together (getrusage(2)).
///
/// It has the kernel's accounting grain; differences over seconds are meaningful, over microseconds not.
#[must_use]
pub fn process_cpu_time() -> Duration {
    // SAFETY: getrusage fills the struct that it is given and has no other effect; zeroes are valid for it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let micros = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_core() {
        std::thread::spawn(|| {
            let last = *cores().unwrap().last().unwrap();
            pin(last).unwrap();
            assert_eq!(cores().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_core_that_does_not_exist_is_named_in_the_error() {
        let err = pin(1_000_000).unwrap_err();
        assert_eq!((err.call, err.errno), ("sched_setaffinity", libc::EINVAL));
        assert!(err.args.contains("1000000"));
    }

    #[test]
    fn a_long_name_is_cut_not_refused() {
        std::thread::spawn(|| {
            name("bf-queue-0123456789").unwrap();
            assert_eq!(
                std::fs::read_to_string("/proc/thread-self/comm").unwrap(),
                "bf-queue-012345\n"
            );
        })
        .join()
        .unwrap();
    }
}
