//! BPF programs: load with the verifier's reasons, and run on frames without a card.

use super::attr::{Command, ProgLoad, ProgTestRun, bpf, bpf_fd, info, object_name, raw};
use super::btf;
use crate::{Error, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The kinds of program in use (enum bpf_prog_type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ProgramType {
    /// Filters what a socket receives.
    SocketFilter = 1,
    /// Classifies at a traffic control hook.
    SchedCls = 3,
    /// Runs in the driver, before the kernel's stack.
    Xdp = 6,
}

/// Which instruction wants which map.
#[derive(Debug, Clone, Copy)]
pub struct MapReference<'a> {
    /// The number of the ld_imm64 instruction, counted in units of eight bytes.
    pub instruction: usize,
    /// The map's descriptor.
    pub map: BorrowedFd<'a>,
}

/// Which instruction calls which function of the kernel (a kfunc).
#[derive(Debug, Clone, Copy)]
pub struct CallReference<'a> {
    /// The number of the call instruction, counted in units of eight bytes.
    pub instruction: usize,
    /// The function's name.
    pub name: &'a str,
}

/// What a program has that is bound to one device (kernel 6.3): it may ask the driver about each frame, and can be
/// attached to that device alone, in driver mode.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// The device, in the calling thread's namespace.
    pub ifindex: u32,
    /// Its calls to the driver's functions.
    pub calls: &'a [CallReference<'a>],
}

/// A program to load.
#[derive(Debug, Clone, Copy)]
pub struct ProgramSource<'a> {
    /// Where it will run.
    pub kind: ProgramType,
    /// Its name, cut to 15 bytes.
    pub name: &'a str,
    /// Instructions of eight bytes each (struct bpf_insn).
    pub instructions: &'a [u8],
    /// The maps it uses.
    pub maps: &'a [MapReference<'a>],
    /// BPF_F_XDP_HAS_FRAGS: it copes with frames of several buffers.
    pub fragments: bool,
}

impl std::fmt::Display for ProgramSource<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.instructions.len() / 8;
        write!(
            out,
            "type={:?} name={} instructions={count}",
            self.kind, self.name
        )
    }
}

/// A loaded program. The kernel frees it when the last descriptor and attachment are gone.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    id: u32,
    kind: ProgramType,
}

/// What a program made of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// What it returned.
    pub verdict: u32,
    /// The frame as it left it.
    pub frame: Vec<u8>,
}

const CALL: &str = "bpf(BPF_PROG_LOAD)";
const RUN: &str = "bpf(BPF_PROG_TEST_RUN)";
/// Opcode of a 64-bit immediate load (BPF_LD | BPF_DW | BPF_IMM), and the source register that makes its
/// immediate a map's descriptor.
const LD_IMM64: u8 = 0x18;
const BPF_PSEUDO_MAP_FD: u8 = 1;
/// Opcode of a call (BPF_JMP | BPF_CALL), and the source register that makes its immediate a kernel function.
const CALL_INSTRUCTION: u8 = 0x85;
const BPF_PSEUDO_KFUNC_CALL: u8 = 2;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_F_XDP_DEV_BOUND_ONLY: u32 = 1 << 6;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
const LOG_SIZE: usize = 256 * 1024;
/// How much of the verifier's log goes into an error, in bytes: its end has the reason.
const LOG_SHOWN: usize = 4000;
/// How much a program may make a test frame grow, in bytes.
const GROWTH: usize = 512;

impl Program {
    /// Loads a program. Asks for CAP_BPF and CAP_NET_ADMIN. When the verifier refuses it, the error's
    /// arguments end with the verifier's reasons.
    pub fn load(source: &ProgramSource<'_>) -> Result<Self> {
        let code = relocated(source).ok_or_else(|| Error::new(CALL, source.to_string(), libc::EINVAL))?;
        Self::load_code(source, &code, None)
    }

    /// Loads an XDP program that is bound to one device, and may therefore ask its driver about frames. Asks for
    /// CAP_BPF and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// As [`Program::load`]; `ENOENT` when the kernel has no such function, `EOPNOTSUPP` when the driver tells nothing.
    pub fn load_bound(source: &ProgramSource<'_>, bound: &Bound<'_>) -> Result<Self> {
        let invalid = || Error::new(CALL, format!("{source} ifindex={}", bound.ifindex), libc::EINVAL);
        let mut code = relocated(source).ok_or_else(invalid)?;
        for call in bound.calls {
            let (instructions, _) = code.as_chunks_mut::<8>();
            let instruction = instructions.get_mut(call.instruction).ok_or_else(invalid)?;
            if instruction[0] != CALL_INSTRUCTION {
                return Err(invalid());
            }
            instruction[1] = BPF_PSEUDO_KFUNC_CALL << 4;
            instruction[4..8].copy_from_slice(&btf::function(call.name)?.to_ne_bytes());
        }
        Self::load_code(source, &code, Some(bound.ifindex))
    }

    fn load_code(source: &ProgramSource<'_>, code: &[u8], device: Option<u32>) -> Result<Self> {
        let args = || match device {
            Some(ifindex) => format!("{source} ifindex={ifindex}"),
            None => source.to_string(),
        };
        let fd = match load(source, code, device, None) {
            Ok(fd) => fd,
            Err(errno @ (libc::EPERM | libc::ENOMEM | libc::ENOSYS)) => {
                return Err(Error::new(CALL, args(), errno));
            }
            Err(_) => {
                let mut log = vec![0; LOG_SIZE];
                load(source, code, device, Some(&mut log)).map_err(|errno| {
                    let reasons = reasons(&log);
                    let separator = if reasons.is_empty() {
                        ""
                    } else {
                        "; the verifier says:\n"
                    };
                    Error::new(CALL, format!("{}{separator}{reasons}", args()), errno)
                })?
            }
        };
        // struct bpf_prog_info: type, id
        let [_, id] =
            info(fd.as_fd()).map_err(|errno| Error::new("bpf(BPF_OBJ_GET_INFO_BY_FD)", args(), errno))?;
        Ok(Self {
            fd,
            id,
            kind: source.kind,
        })
    }

    /// The program's number in the kernel.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The kind it was loaded as.
    #[must_use]
    pub fn kind(&self) -> ProgramType {
        self.kind
    }

    /// Runs the program once on `frame` (14 bytes at least), with no card involved.
    pub fn test_run(&self, frame: &[u8]) -> Result<TestRun> {
        let mut out = vec![0; frame.len() + GROWTH];
        let mut attr = ProgTestRun {
            prog_fd: raw(self.fd.as_fd()),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr().expose_provenance() as u64,
            data_size_out: out.len() as u32,
            data_out: out.as_mut_ptr().expose_provenance() as u64,
            repeat: 1,
            ..Default::default()
        };
        // SAFETY: both buffers are live and as long as the block says.
        unsafe { bpf(Command::ProgTestRun, &mut attr) }.map_err(|errno| self.run_error(frame, errno))?;
        out.truncate(attr.data_size_out as usize);
        Ok(TestRun {
            verdict: attr.retval,
            frame: out,
        })
    }

    /// Runs an XDP program on `frame` `repeat` times with live frames (kernel 5.18): what it redirects or
    /// passes really travels, as if it had arrived on queue `queue` of the interface `ifindex` of the
    /// calling thread's namespace. The frame must fit a page with its headroom (about 3,400 bytes).
    pub fn run_live(&self, frame: &[u8], ifindex: u32, queue: u32, repeat: u32) -> Result<()> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context: [u32; 6] = [0, frame.len() as u32, 0, ifindex, queue, 0];
        let mut attr = ProgTestRun {
            prog_fd: raw(self.fd.as_fd()),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr().expose_provenance() as u64,
            ctx_size_in: size_of_val(&context) as u32,
            ctx_in: context.as_ptr().expose_provenance() as u64,
            repeat,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            ..Default::default()
        };
        // SAFETY: frame and context are live and as long as the block says; in this mode nothing is
        // written back.
        unsafe { bpf(Command::ProgTestRun, &mut attr) }.map_err(|errno| self.run_error(frame, errno))?;
        Ok(())
    }

    fn run_error(&self, frame: &[u8], errno: i32) -> Error {
        Error::new(
            RUN,
            format!("program={} frame of {} bytes", self.id, frame.len()),
            errno,
        )
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The instructions with the maps' descriptors put in; none when they are not whole instructions, or a
/// reference points at something else than a 64-bit immediate load.
fn relocated(source: &ProgramSource<'_>) -> Option<Vec<u8>> {
    let mut code = source.instructions.to_vec();
    if code.is_empty() || !code.len().is_multiple_of(8) {
        return None;
    }
    for reference in source.maps {
        let at = reference.instruction.checked_mul(8)?;
        // struct bpf_insn: u8 code; u8 dst_reg:4, src_reg:4; s16 off; s32 imm. The load takes two.
        let instruction = code.get_mut(at..at.checked_add(16)?)?;
        if instruction[0] != LD_IMM64 {
            return None;
        }
        instruction[1] = instruction[1] & 0x0f | BPF_PSEUDO_MAP_FD << 4;
        instruction[4..8].copy_from_slice(&raw(reference.map).to_ne_bytes());
        instruction[12..16].fill(0);
    }
    Some(code)
}

fn load(
    source: &ProgramSource<'_>,
    code: &[u8],
    device: Option<u32>,
    mut log: Option<&mut Vec<u8>>,
) -> std::result::Result<OwnedFd, i32> {
    // The kernel lends its own functions only to programs under a licence that goes with its own.
    let (license, bound) = match device {
        Some(_) => (c"Dual MIT/GPL", BPF_F_XDP_DEV_BOUND_ONLY),
        None => (c"MIT", 0),
    };
    let fragments = if source.fragments { BPF_F_XDP_HAS_FRAGS } else { 0 };
    // bpf(2): the verifier gives up with EAGAIN when a signal is pending.
    let mut attempts = 5;
    loop {
        let mut attr = ProgLoad {
            prog_type: source.kind as u32,
            insn_cnt: (code.len() / 8) as u32,
            insns: code.as_ptr().expose_provenance() as u64,
            license: license.as_ptr().expose_provenance() as u64,
            prog_flags: fragments | bound,
            prog_ifindex: device.unwrap_or(0),
            prog_name: object_name(source.name),
            ..Default::default()
        };
        if let Some(log) = &mut log {
            attr.log_level = 1;
            attr.log_size = log.len() as u32;
            attr.log_buf = log.as_mut_ptr().expose_provenance() as u64;
        }
        // SAFETY: code and log are live and as long as the block says, the licence ends with a NUL.
        match unsafe { bpf_fd(Command::ProgLoad, &mut attr) } {
            Err(libc::EAGAIN) if attempts > 0 => attempts -= 1,
            result => return result,
        }
    }
}

/// The end of the verifier's log, without the NUL and its statistics.
fn reasons(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[end.saturating_sub(LOG_SHOWN)..end]).into_owned();
    text.lines()
        .filter(|line| !line.starts_with("processed "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source<'a>(instructions: &'a [u8], maps: &'a [MapReference<'a>]) -> ProgramSource<'a> {
        ProgramSource {
            kind: ProgramType::Xdp,
            name: "t",
            instructions,
            maps,
            fragments: false,
        }
    }

    #[test]
    fn a_map_goes_into_the_load_that_wants_it() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let maps = [MapReference {
            instruction: 1,
            map: file.as_fd(),
        }];
        let mut code = vec![0xb7, 0, 0, 0, 2, 0, 0, 0];
        code.extend([0x18, 0x02, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0, 9, 9, 9, 9]);
        let out = relocated(&source(&code, &maps)).unwrap();
        assert_eq!(out[..8], code[..8]);
        assert_eq!(out[8..10], [0x18, 0x12]);
        assert_eq!(out[12..16], raw(file.as_fd()).to_ne_bytes());
        assert_eq!(out[16..], [0; 8]);
    }

    #[test]
    fn a_reference_to_anything_else_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let code = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
        for instruction in [0, 1, 2, usize::MAX] {
            let maps = [MapReference {
                instruction,
                map: file.as_fd(),
            }];
            assert_eq!(relocated(&source(&code, &maps)), None, "{instruction}");
        }
        assert_eq!(relocated(&source(&code[..7], &[])), None);
        assert_eq!(relocated(&source(&[], &[])), None);
    }

    #[test]
    fn the_end_of_the_log_is_the_reason() {
        assert_eq!(
            reasons(b"0: (95) exit\nR0 !read_ok\nprocessed 1 insns (limit 1000000)\n\0\0"),
            "0: (95) exit\nR0 !read_ok"
        );
        assert_eq!(reasons(b"\0"), "");
    }
}
