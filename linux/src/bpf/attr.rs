//! The argument blocks of bpf(2) (union bpf_attr, include/uapi/linux/bpf.h), and the call itself.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// enum bpf_cmd, as far as it is used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    ProgGetFdById = 13,
    ObjGetInfoByFd = 15,
    ProgQuery = 16,
    LinkCreate = 28,
    LinkUpdate = 29,
    EnableStats = 32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct MapCreate {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub inner_map_fd: u32,
    pub numa_node: u32,
    pub map_name: [u8; 16],
    pub tail: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct MapElement {
    pub map_fd: u32,
    pub pad: u32,
    pub key: u64,
    pub value: u64,
    pub flags: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct ProgLoad {
    pub prog_type: u32,
    pub insn_cnt: u32,
    pub insns: u64,
    pub license: u64,
    pub log_level: u32,
    pub log_size: u32,
    pub log_buf: u64,
    pub kern_version: u32,
    pub prog_flags: u32,
    pub prog_name: [u8; 16],
    pub prog_ifindex: u32,
    pub expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct ProgTestRun {
    pub prog_fd: u32,
    pub retval: u32,
    pub data_size_in: u32,
    pub data_size_out: u32,
    pub data_in: u64,
    pub data_out: u64,
    pub repeat: u32,
    pub duration: u32,
    pub ctx_size_in: u32,
    pub ctx_size_out: u32,
    pub ctx_in: u64,
    pub ctx_out: u64,
    pub flags: u32,
    pub cpu: u32,
    pub batch_size: u32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct GetId {
    pub id: u32,
    pub next_id: u32,
    pub open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct GetInfo {
    pub bpf_fd: u32,
    pub info_len: u32,
    pub info: u64,
}

/// Whole, to its last field: the kernel writes `revision` for tcx whatever the size that it was given (bpf_mprog_query()
/// in kernel/bpf/mprog.c), so a shorter block has what stands behind it on the stack overwritten.
#[repr(C)]
#[derive(Default)]
pub(super) struct ProgQuery {
    pub target_ifindex: u32,
    pub attach_type: u32,
    pub query_flags: u32,
    pub attach_flags: u32,
    pub prog_ids: u64,
    pub prog_cnt: u32,
    pub pad: u32,
    pub prog_attach_flags: u64,
    pub link_ids: u64,
    pub link_attach_flags: u64,
    pub revision: u64,
}

/// `query` of `union bpf_attr` in include/uapi/linux/bpf.h.
const _: () = assert!(size_of::<ProgQuery>() == 64 && std::mem::offset_of!(ProgQuery, revision) == 56);

#[repr(C)]
#[derive(Default)]
pub(super) struct LinkCreate {
    pub prog_fd: u32,
    pub target_ifindex: u32,
    pub attach_type: u32,
    pub flags: u32,
    pub relative_fd: u32,
    pub pad: u32,
    pub expected_revision: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct LinkUpdate {
    pub link_fd: u32,
    pub new_prog_fd: u32,
    pub flags: u32,
    pub old_prog_fd: u32,
}

/// Calls bpf(2) with `attr`, one of the blocks above.
///
/// # Safety
/// `attr` is the block that `command` takes, and every address in it is valid for what the command reads
/// and writes there.
pub(super) unsafe fn bpf<T>(command: Command, attr: &mut T) -> Result<usize, i32> {
    let args = [
        command as usize,
        std::ptr::from_mut(attr).addr(),
        size_of::<T>(),
        0,
        0,
        0,
    ];
    std::ptr::from_mut(attr).expose_provenance();
    // SAFETY: `attr` is a live, exclusively borrowed block of the size given; the caller vouches for its
    // content.
    unsafe { crate::call::call(libc::SYS_bpf, args) }
}

/// As [`bpf`], for a command that gives a new descriptor (which the kernel opens close-on-exec).
///
/// # Safety
/// As for [`bpf`]; `command` gives a descriptor.
pub(super) unsafe fn bpf_fd<T>(command: Command, attr: &mut T) -> Result<OwnedFd, i32> {
    // SAFETY: the caller vouches for command and block.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the command just opened this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Fills `info`, the start of one of the bpf_*_info structs, about the object behind `fd`.
pub(super) fn info<const N: usize>(fd: BorrowedFd<'_>) -> Result<[u32; N], i32> {
    let mut info = [0u32; N];
    let mut attr = GetInfo {
        bpf_fd: raw(fd),
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: `info` is a live buffer of the length given; the kernel writes at most that much, and zeroes
    // in it ask for no further array.
    unsafe { bpf(Command::ObjGetInfoByFd, &mut attr) }?;
    Ok(info)
}

pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// An object's name as bpf(2) takes it: at most 15 bytes, letters, digits, `_` and `.` only.
pub(super) fn object_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.bytes()) {
        *to = if from.is_ascii_alphanumeric() || from == b'.' {
            from
        } else {
            b'_'
        };
    }
    out
}

/// A name out of an info struct.
pub(super) fn name_of(words: &[u32]) -> String {
    let bytes: Vec<u8> = words
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Worked out by hand from union bpf_attr: __aligned_u64 fields stand at multiples of eight.
    #[test]
    fn blocks_are_laid_out_as_the_header_has_them() {
        assert_eq!(offset_of!(MapCreate, map_name), 28);
        assert_eq!(
            (offset_of!(MapElement, key), offset_of!(MapElement, flags)),
            (8, 24)
        );
        assert_eq!(
            (offset_of!(ProgLoad, license), offset_of!(ProgLoad, log_buf)),
            (16, 32)
        );
        assert_eq!(
            (
                offset_of!(ProgLoad, prog_name),
                offset_of!(ProgLoad, expected_attach_type)
            ),
            (48, 68)
        );
        assert_eq!(
            (offset_of!(ProgTestRun, data_in), offset_of!(ProgTestRun, ctx_in)),
            (16, 48)
        );
        assert_eq!(
            (
                offset_of!(ProgTestRun, flags),
                offset_of!(ProgTestRun, batch_size)
            ),
            (64, 72)
        );
        assert_eq!(
            (
                offset_of!(LinkCreate, flags),
                offset_of!(LinkCreate, expected_revision)
            ),
            (12, 24)
        );
    }

    #[test]
    fn names_fit_what_the_kernel_accepts() {
        assert_eq!(&object_name("bifurcate eth0-steering"), b"bifurcate_eth0_\0");
    }
}
