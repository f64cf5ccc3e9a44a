//! Looks at the AF_XDP sockets of other processes: whose they are, how full their rings are, what was dropped.
//!
//! The kernel's own list ([`super::diag`]) knows no ring positions, and many kernels are built without it. A socket that
//! is in use has its rings mapped, which /proc/PID/maps shows; pidfd_getfd(2) gives a second descriptor of it (for whom
//! may trace the process), and through that the rings are mapped once more, to be read only. The descriptor is closed
//! at once: while it is open, the queue would stay taken when its owner dies.

use super::diag::{self, Diag};
use super::{Bind, CopyMode, MmapOffsets, NEED_WAKEUP, RingKind, RingOffsets, Statistics, XskSocket};
use crate::call::call;
use crate::memory::Mapping;
use crate::netns::Netns;
use crate::{Error, Result, process, sockopt};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// Where a ring's two ends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingState {
    /// Entries that were put in since the ring was made, modulo 2^32.
    pub producer: u32,
    /// Entries that were taken out.
    pub consumer: u32,
    /// XDP_RING_NEED_WAKEUP: the kernel sleeps until it is called.
    pub need_wakeup: bool,
}

/// A process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// It has the fill ring mapped: it may put free frames there.
    pub fills: bool,
}

/// What can be seen of an AF_XDP socket on a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its inode.
    pub inode: u32,
    /// The queue it is bound to.
    pub queue: u32,
    /// Who has it in use.
    pub holders: Vec<Holder>,
    /// Zero-copy or not; none where that cannot be seen.
    pub zero_copy: Option<bool>,
    /// What the kernel counted for it.
    pub statistics: Option<Statistics>,
    /// What the kernel's list says, where it has one.
    pub diag: Option<Diag>,
    /// Its rings; none where it has no such ring, or the caller may not look.
    pub rx: Option<RingState>,
    /// As above.
    pub tx: Option<RingState>,
    /// As above; also none where it uses another socket's.
    pub fill: Option<RingState>,
    /// As above.
    pub completion: Option<RingState>,
}

/// ioctl of a socket: a descriptor of its namespace (include/uapi/linux/sockios.h).
const SIOCGSKNS: usize = 0x894c;

/// The AF_XDP sockets on interface `ifindex` of the calling thread's namespace, by queue. `queues` is how many receive
/// queues it has. Sockets of processes that the caller may not trace are left out where the kernel has no list.
pub fn sockets_on(ifindex: u32, queues: u32) -> Result<Vec<Seen>> {
    let here = Netns::open(None)?.inode();
    let mapped = mapped();
    let mut seen: Vec<Seen> = match diag::sockets()? {
        Some(all) => all
            .into_iter()
            .filter(|diag| diag.ifindex == Some(ifindex))
            .map(|diag| from_diag(diag, mapped.get(&diag.inode)))
            .collect(),
        None => mapped
            .iter()
            .filter_map(|(inode, holders)| found(*inode, holders, here, ifindex, queues))
            .collect(),
    };
    seen.sort_by_key(|socket| (socket.queue, socket.inode));
    Ok(seen)
}

fn from_diag(diag: Diag, holders: Option<&Vec<Holder>>) -> Seen {
    let holders = holders.cloned().unwrap_or_default();
    let socket = duplicate_of(diag.inode, &holders);
    let mut seen = look(socket.as_ref(), diag.inode, diag.queue, holders);
    seen.zero_copy = seen.zero_copy.or(diag.umem.map(|umem| umem.zero_copy));
    seen.statistics = diag.statistics.or(seen.statistics);
    seen.diag = Some(diag);
    seen
}

fn found(inode: u32, holders: &[Holder], here: u64, ifindex: u32, queues: u32) -> Option<Seen> {
    let socket = duplicate_of(inode, holders)?;
    if namespace_of(socket.as_fd())? != here {
        return None;
    }
    let queue = queue_of(socket.as_fd(), ifindex, queues)?;
    Some(look(Some(&socket), inode, queue, holders.to_vec()))
}

fn look(socket: Option<&XskSocket>, inode: u32, queue: u32, holders: Vec<Holder>) -> Seen {
    let ring = |kind| socket.and_then(|socket| ring_state(socket, kind));
    Seen {
        inode,
        queue,
        holders,
        zero_copy: socket.and_then(|socket| socket.is_zero_copy().ok()),
        statistics: socket.and_then(|socket| socket.statistics().ok()),
        diag: None,
        rx: ring(RingKind::Rx),
        tx: ring(RingKind::Tx),
        fill: ring(RingKind::Fill),
        completion: ring(RingKind::Completion),
    }
}

/// Which queue of `ifindex` a bound socket has, for kernels that do not list them. A socket can share the frame memory
/// of another without rings of its own on that one's queue only (xp_assign_dev_shared, net/xdp/xsk_buff_pool.c): a
/// socket of ours, which no program knows, tries one queue after the other and is closed again.
fn queue_of(socket: BorrowedFd<'_>, ifindex: u32, queues: u32) -> Option<u32> {
    let ours = XskSocket::open().ok()?;
    ours.size_ring(RingKind::Rx, 2).ok()?;
    (0..queues).find(|queue| {
        let to = Bind {
            ifindex,
            queue: *queue,
            copy: CopyMode::Any,
            need_wakeup: false,
            multi_buffer: false,
            shared: Some(socket),
        };
        ours.bind(&to).is_ok()
    })
}

/// Reads both ends of a ring through a mapping of our own.
fn ring_state(socket: &XskSocket, kind: RingKind) -> Option<RingState> {
    let mut all = MmapOffsets::default();
    let fd = socket.as_fd();
    let call_name = "getsockopt(XDP_MMAP_OFFSETS)";
    let got = sockopt::get(
        fd,
        libc::SOL_XDP,
        libc::XDP_MMAP_OFFSETS,
        &mut all,
        call_name,
        String::new,
    );
    if got.ok()? != size_of::<MmapOffsets>() {
        return None;
    }
    let RingOffsets {
        producer,
        consumer,
        entries,
        flags,
    } = match kind {
        RingKind::Rx => all.rx,
        RingKind::Tx => all.tx,
        RingKind::Fill => all.fill,
        RingKind::Completion => all.completion,
    };
    // The indices and flags stand before the entries: that much is mapped, of any ring.
    let mapping = Mapping::read_only(fd, kind.page_offset(), entries as usize, kind.name()).ok()?;
    let word = |offset: u64| read_word(&mapping, offset as usize);
    Some(RingState {
        // In this order, so that what is in a ring in motion is never less than nothing.
        consumer: word(consumer)?,
        producer: word(producer)?,
        need_wakeup: word(flags)? & NEED_WAKEUP != 0,
    })
}

fn read_word(mapping: &Mapping, offset: usize) -> Option<u32> {
    let fits = offset.is_multiple_of(4) && offset.checked_add(4)? <= mapping.len();
    let base: NonNull<u8> = mapping.base();
    // SAFETY: the offset was just seen to lie, aligned, in the mapping, which is alive; the kernel and the ring's owner
    // may write the word at any time, which a volatile read copes with.
    fits.then(|| unsafe { base.as_ptr().add(offset).cast::<u32>().read_volatile() })
}

/// A second descriptor of a socket, from the first holder that lets us have one.
fn duplicate_of(inode: u32, holders: &[Holder]) -> Option<XskSocket> {
    holders.iter().find_map(|holder| {
        let number = descriptor_of(holder.pid, inode)?;
        duplicate(holder.pid, number).ok().map(XskSocket)
    })
}

fn duplicate(pid: u32, number: i32) -> Result<OwnedFd> {
    let refused = |call, errno| Error::new(call, format!("pid={pid} fd={number}"), errno);
    // SAFETY: pidfd_open(2) takes two integers.
    let pidfd = unsafe { call(libc::SYS_pidfd_open, [pid as usize, 0, 0, 0, 0, 0]) }
        .map_err(|errno| refused("pidfd_open", errno))?;
    // SAFETY: the kernel just gave this descriptor to us; nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
    let args = [pidfd.as_raw_fd() as usize, number as usize, 0, 0, 0, 0];
    // SAFETY: pidfd_getfd(2) takes three integers.
    let fd = unsafe { call(libc::SYS_pidfd_getfd, args) }.map_err(|errno| refused("pidfd_getfd", errno))?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The inode of a socket's network namespace.
fn namespace_of(socket: BorrowedFd<'_>) -> Option<u64> {
    let args = [socket.as_raw_fd() as usize, SIOCGSKNS, 0, 0, 0, 0];
    // SAFETY: SIOCGSKNS takes no argument.
    let fd = unsafe { call(libc::SYS_ioctl, args) }.ok()?;
    // SAFETY: the kernel just gave this descriptor to us; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    rustix::fs::fstat(&fd).ok().map(|stat| stat.st_ino)
}

fn descriptor_of(pid: u32, inode: u32) -> Option<i32> {
    let wanted = format!("socket:[{inode}]");
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .flatten()
        .find(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))?
        .file_name()
        .to_str()?
        .parse()
        .ok()
}

/// Who has rings of AF_XDP sockets mapped, by the sockets' inodes; of processes whose maps the caller may read.
fn mapped() -> BTreeMap<u32, Vec<Holder>> {
    let mut all: BTreeMap<u32, Vec<Holder>> = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else {
            continue;
        };
        let mut sockets: BTreeMap<u32, bool> = BTreeMap::new();
        for (inode, fills) in maps.lines().filter_map(ring_mapping) {
            *sockets.entry(inode).or_default() |= fills;
        }
        for (inode, fills) in sockets {
            let Some(command) = process::command(pid) else {
                continue;
            };
            all.entry(inode).or_default().push(Holder { pid, command, fills });
        }
    }
    all
}

/// The socket of a line of /proc/PID/maps and whether it is a fill ring; none for anything but an AF_XDP ring.
/// Packet sockets map from offset 0 on only; rings of other kinds than RX have offsets of their own.
fn ring_mapping(line: &str) -> Option<(u32, bool)> {
    let mut fields = line.split_ascii_whitespace();
    let offset = u64::from_str_radix(fields.nth(2)?, 16).ok()?;
    let name = fields.nth(2)?;
    let inode = name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
    let kinds = [RingKind::Tx, RingKind::Fill, RingKind::Completion];
    (offset == 0 || kinds.iter().any(|kind| kind.page_offset() == offset))
        .then_some((inode, offset == RingKind::Fill.page_offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_told_from_other_mappings() {
        let line = |offset: &str, name: &str| {
            format!("7f2c1d400000-7f2c1d405000 rw-s {offset} 00:08 31337                      {name}")
        };
        assert_eq!(
            ring_mapping(&line("100000000", "socket:[31337]")),
            Some((31337, true))
        );
        assert_eq!(
            ring_mapping(&line("180000000", "socket:[31337]")),
            Some((31337, false))
        );
        assert_eq!(
            ring_mapping(&line("00000000", "socket:[31337]")),
            Some((31337, false))
        );
        assert_eq!(ring_mapping(&line("00001000", "socket:[31337]")), None);
        assert_eq!(ring_mapping(&line("100000000", "/memfd:pool (deleted)")), None);
        assert_eq!(ring_mapping("garbage"), None);
    }
}
