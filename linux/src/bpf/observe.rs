//! Looks at programs that others have loaded: how often they ran, and what they make of a frame.

use super::attr::{Command, GetId, ProgTestRun, bpf, bpf_fd, info, raw};
use super::program::TestRun;
use crate::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};

/// While this lives the kernel counts how often each program runs (BPF_ENABLE_STATS, kernel 5.8).
#[derive(Debug)]
pub struct Counting(#[allow(dead_code, reason = "closing it ends the counting")] OwnedFd);

/// How often a program ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Runs {
    /// Runs since counting began for the first time.
    pub runs: u64,
    /// Runs that were left out since the program was at work on that processor already.
    pub missed: u64,
}

#[repr(C)]
#[derive(Default)]
struct EnableStats {
    kind: u32,
    pad: u32,
}

/// Room for what a program may make a frame grow, in bytes.
const GROWTH: usize = 512;

impl Counting {
    /// Begins to count. Asks for CAP_SYS_ADMIN.
    pub fn begin() -> Result<Self> {
        // BPF_STATS_RUN_TIME is 0.
        let mut attr = EnableStats::default();
        // SAFETY: the block of BPF_ENABLE_STATS holds no address.
        unsafe { bpf_fd(Command::EnableStats, &mut attr) }
            .map(Self)
            .map_err(|errno| Error::new("bpf(BPF_ENABLE_STATS)", "run time", errno))
    }
}

/// How often program `id` ran; none when it is not loaded any more. Asks for CAP_SYS_ADMIN.
pub fn runs(id: u32) -> Result<Option<Runs>> {
    let Some(fd) = open(id)? else { return Ok(None) };
    // struct bpf_prog_info: run_cnt at byte 200, recursion_misses at 208.
    let words: [u32; 54] = info(fd.as_fd())
        .map_err(|errno| Error::new("bpf(BPF_OBJ_GET_INFO_BY_FD)", format!("program={id}"), errno))?;
    let long = |at: usize| {
        let [low, high] = [words[at].to_ne_bytes(), words[at + 1].to_ne_bytes()];
        let bytes = [low, high].concat();
        bytes.try_into().map_or(0, u64::from_ne_bytes)
    };
    Ok(Some(Runs {
        runs: long(50),
        missed: long(52),
    }))
}

/// Runs the XDP program `id` once on `frame` as if it had arrived on queue `queue` of interface `ifindex` of the calling
/// thread's namespace; no packet travels. Its maps are the ones in use: what it counts, it counts.
///
/// # Errors
/// `ENOENT` when no such program is loaded, `EPERM` without CAP_SYS_ADMIN, `EINVAL` for a queue that the interface has
/// no receive ring of.
pub fn run_on(id: u32, frame: &[u8], ifindex: u32, queue: u32) -> Result<TestRun> {
    const CALL: &str = "bpf(BPF_PROG_TEST_RUN)";
    let refused = |errno| {
        let args = format!(
            "program={id} ifindex={ifindex} queue={queue} frame of {} bytes",
            frame.len()
        );
        Error::new(CALL, args, errno)
    };
    let fd = open(id)?.ok_or_else(|| refused(libc::ENOENT))?;
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    let context: [u32; 6] = [0, frame.len() as u32, 0, ifindex, queue, 0];
    let mut out = vec![0; frame.len() + GROWTH];
    let mut attr = ProgTestRun {
        prog_fd: raw(fd.as_fd()),
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr().expose_provenance() as u64,
        data_size_out: out.len() as u32,
        data_out: out.as_mut_ptr().expose_provenance() as u64,
        ctx_size_in: size_of_val(&context) as u32,
        ctx_in: context.as_ptr().expose_provenance() as u64,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: frame, context and output are live and as long as the block says.
    unsafe { bpf(Command::ProgTestRun, &mut attr) }.map_err(refused)?;
    out.truncate(attr.data_size_out as usize);
    Ok(TestRun {
        verdict: attr.retval,
        frame: out,
    })
}

/// A descriptor of program `id`, or none when it is not loaded any more.
pub(super) fn open(id: u32) -> Result<Option<OwnedFd>> {
    let mut attr = GetId {
        id,
        ..Default::default()
    };
    // SAFETY: the block of BPF_PROG_GET_FD_BY_ID holds no address.
    match unsafe { bpf_fd(Command::ProgGetFdById, &mut attr) } {
        Ok(fd) => Ok(Some(fd)),
        Err(libc::ENOENT) => Ok(None),
        Err(errno) => Err(Error::new(
            "bpf(BPF_PROG_GET_FD_BY_ID)",
            format!("program={id}"),
            errno,
        )),
    }
}
