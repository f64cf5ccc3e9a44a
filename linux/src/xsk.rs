//! AF_XDP sockets: registering the frame memory, sizing and mapping the four rings, binding, waking.
//!
//! The layouts and option numbers are those of `include/uapi/linux/if_xdp.h`.

pub mod diag;
pub mod peek;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::call::call;
use crate::memory::Mapping;
use crate::sockopt::{self, Plain};
use crate::{Error, Result};

/// One of the four rings of an AF_XDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingKind {
    /// Kernel to user: descriptors of received frames.
    Rx,
    /// User to kernel: descriptors of frames to send.
    Tx,
    /// User to kernel: addresses of free frames for receiving.
    Fill,
    /// Kernel to user: addresses of frames that have been sent.
    Completion,
}

impl RingKind {
    fn option(self) -> i32 {
        match self {
            RingKind::Rx => libc::XDP_RX_RING,
            RingKind::Tx => libc::XDP_TX_RING,
            RingKind::Fill => libc::XDP_UMEM_FILL_RING,
            RingKind::Completion => libc::XDP_UMEM_COMPLETION_RING,
        }
    }

    fn page_offset(self) -> u64 {
        match self {
            RingKind::Rx => 0,
            RingKind::Tx => 0x8000_0000,
            RingKind::Fill => libc::XDP_UMEM_PGOFF_FILL_RING,
            RingKind::Completion => libc::XDP_UMEM_PGOFF_COMPLETION_RING,
        }
    }

    /// Bytes of one entry: a `struct xdp_desc` (16), or a bare address (8).
    #[must_use]
    pub fn entry_size(self) -> usize {
        match self {
            RingKind::Rx | RingKind::Tx => 16,
            RingKind::Fill | RingKind::Completion => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            RingKind::Rx => "AF_XDP rx ring",
            RingKind::Tx => "AF_XDP tx ring",
            RingKind::Fill => "AF_XDP fill ring",
            RingKind::Completion => "AF_XDP completion ring",
        }
    }
}

/// Where a ring's parts lie in its mapping, in bytes (`struct xdp_ring_offset`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RingOffsets {
    /// The producer index, a u32.
    pub producer: u64,
    /// The consumer index, a u32.
    pub consumer: u64,
    /// The first entry.
    pub entries: u64,
    /// The flags word, a u32 ([`NEED_WAKEUP`]).
    pub flags: u64,
}

/// Bit of a ring's flags word: the kernel sleeps and wants to be called (XDP_RING_NEED_WAKEUP).
pub const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// Bit of a descriptor's options: the packet goes on in the next descriptor (XDP_PKT_CONTD).
pub const CONTINUED: u32 = libc::XDP_PKT_CONTD;

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct MmapOffsets {
    rx: RingOffsets,
    tx: RingOffsets,
    fill: RingOffsets,
    completion: RingOffsets,
}

/// `struct xdp_umem_reg` with the field that 6.8 added for transmit metadata.
#[derive(Clone, Copy)]
#[repr(C)]
struct UmemReg {
    addr: u64,
    len: u64,
    chunk_size: u32,
    headroom: u32,
    flags: u32,
    tx_metadata_len: u32,
}

/// What the kernel counted for a socket since it was made (`struct xdp_statistics`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Statistics {
    /// Frames dropped because no frame was in the fill ring, or for being too long.
    pub rx_dropped: u64,
    /// Entries of the fill ring that were no valid frame address.
    pub rx_invalid_descs: u64,
    /// Entries of the tx ring that were no valid descriptor.
    pub tx_invalid_descs: u64,
    /// Frames dropped because the rx ring was full: nobody consumed in time.
    pub rx_ring_full: u64,
    /// How often the kernel found the fill ring empty.
    pub rx_fill_ring_empty_descs: u64,
    /// How often the kernel found the tx ring empty.
    pub tx_ring_empty_descs: u64,
}

// SAFETY: 16 u64 without padding.
unsafe impl Plain for MmapOffsets {}
// SAFETY: two u64 and four u32 without padding.
unsafe impl Plain for UmemReg {}
// SAFETY: six u64 without padding.
unsafe impl Plain for Statistics {}

/// Zero-copy, copy, or the kernel's choice (zero-copy when the driver has it, else a copy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// Neither flag: the kernel tries zero-copy and falls back.
    Any,
    /// XDP_COPY.
    Copy,
    /// XDP_ZEROCOPY: an error when the driver cannot.
    ZeroCopy,
}

/// The arguments of a bind.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    /// Interface index, in the network namespace the socket was made in.
    pub ifindex: u32,
    /// Queue of that interface.
    pub queue: u32,
    /// Copy mode; must be `Any` with `shared`, which inherits it.
    pub copy: CopyMode,
    /// XDP_USE_NEED_WAKEUP; must be false with `shared`, which inherits it.
    pub need_wakeup: bool,
    /// XDP_USE_SG, multi-buffer frames; must be false with `shared`, which inherits it.
    pub multi_buffer: bool,
    /// Use the frame memory that this bound socket registered (XDP_SHARED_UMEM).
    pub shared: Option<BorrowedFd<'a>>,
}

/// An AF_XDP socket.
#[derive(Debug)]
pub struct XskSocket(OwnedFd);

impl XskSocket {
    /// Makes one in the calling thread's network namespace.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW, `EAFNOSUPPORT` on a kernel without AF_XDP.
    pub fn open() -> Result<XskSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes three integers and touches no memory of ours.
        let fd = unsafe {
            call(
                libc::SYS_socket,
                [libc::AF_XDP as usize, kind as usize, 0, 0, 0, 0],
            )
        }
        .map_err(|errno| Error::new("socket(AF_XDP)", "", errno))?;
        // SAFETY: the kernel just gave this descriptor to us; nobody else owns it.
        Ok(XskSocket(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// The AF_XDP socket behind a descriptor that another process made and passed.
    ///
    /// # Errors
    /// `ENOTSOCK`, or `EPROTOTYPE` when it is a socket of another family.
    pub fn received(fd: OwnedFd) -> Result<XskSocket> {
        let mut family = 0i32;
        let call_name = "getsockopt(SO_DOMAIN)";
        sockopt::get(
            fd.as_fd(),
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            &mut family,
            call_name,
            String::new,
        )?;
        if family != libc::AF_XDP {
            return Err(Error::new(
                call_name,
                format!("family={family}"),
                libc::EPROTOTYPE,
            ));
        }
        Ok(XskSocket(fd))
    }

    /// Registers the first `len` bytes of `memory` as frame memory, in chunks of `chunk_size` bytes.
    ///
    /// The kernel pins the pages until the last socket that uses them is gone, so unmapping earlier is no
    /// danger to it. `headroom` bytes are left free before each received frame, besides the kernel's 256.
    ///
    /// # Errors
    /// `ENOBUFS` when RLIMIT_MEMLOCK is too small and the process lacks CAP_IPC_LOCK; `EINVAL` for a chunk
    /// size that is no power of two from 2048 to the page size, or a length that is no multiple of it.
    pub fn register(&self, memory: &Mapping, len: usize, chunk_size: u32, headroom: u32) -> Result<()> {
        assert!(len <= memory.len(), "registering more than is mapped");
        let addr = memory.base().as_ptr() as u64;
        let reg = UmemReg {
            addr,
            len: len as u64,
            chunk_size,
            headroom,
            flags: 0,
            tx_metadata_len: 0,
        };
        sockopt::set(
            self.as_fd(),
            libc::SOL_XDP,
            libc::XDP_UMEM_REG,
            &reg,
            "setsockopt(XDP_UMEM_REG)",
            || format!("len={len} chunk_size={chunk_size} headroom={headroom}"),
        )
    }

    /// Makes the ring `kind` with `entries` entries, a power of two.
    ///
    /// # Errors
    /// `EINVAL` for another number, `EBUSY` after a bind.
    pub fn size_ring(&self, kind: RingKind, entries: u32) -> Result<()> {
        let call_name = "setsockopt(SOL_XDP)";
        sockopt::set(
            self.as_fd(),
            libc::SOL_XDP,
            kind.option(),
            &entries,
            call_name,
            || format!("{} entries={entries}", kind.name()),
        )
    }

    /// Maps the ring `kind`, made before with `entries` entries; gives the mapping and where its parts lie.
    ///
    /// # Errors
    /// `EINVAL` when the ring was not made, `EOPNOTSUPP` on a kernel older than 5.4, which has no flags word.
    pub fn map_ring(&self, kind: RingKind, entries: u32) -> Result<(Mapping, RingOffsets)> {
        let mut all = MmapOffsets::default();
        let call_name = "getsockopt(XDP_MMAP_OFFSETS)";
        let got = sockopt::get(
            self.as_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            &mut all,
            call_name,
            || kind.name().into(),
        )?;
        if got != size_of::<MmapOffsets>() {
            return Err(Error::new(
                call_name,
                format!("{} got={got} bytes", kind.name()),
                libc::EOPNOTSUPP,
            ));
        }
        let offsets = match kind {
            RingKind::Rx => all.rx,
            RingKind::Tx => all.tx,
            RingKind::Fill => all.fill,
            RingKind::Completion => all.completion,
        };
        let len = offsets.entries as usize + entries as usize * kind.entry_size();
        let mapping = Mapping::of(self.as_fd(), kind.page_offset(), len, kind.name())?;
        Ok((mapping, offsets))
    }

    /// Binds the socket to a queue: frames redirected to it arrive from now on.
    ///
    /// # Errors
    /// `EBUSY` when another socket has the queue (or had it a moment ago: its release is deferred work),
    /// `EOPNOTSUPP` for zero-copy on a driver without it, `ENODEV`, `ENETDOWN` (zero-copy on a device that
    /// is down), `EINVAL` for a queue that does not exist or a flag the kernel does not know.
    pub fn bind(&self, to: &Bind<'_>) -> Result<()> {
        let mut flags = match to.copy {
            CopyMode::Any => 0,
            CopyMode::Copy => libc::XDP_COPY,
            CopyMode::ZeroCopy => libc::XDP_ZEROCOPY,
        };
        if to.need_wakeup {
            flags |= libc::XDP_USE_NEED_WAKEUP;
        }
        if to.multi_buffer {
            flags |= libc::XDP_USE_SG;
        }
        if to.shared.is_some() {
            flags |= libc::XDP_SHARED_UMEM;
        }
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: to.ifindex,
            sxdp_queue_id: to.queue,
            sxdp_shared_umem_fd: to.shared.map_or(0, |fd| fd.as_raw_fd() as u32),
        };
        let fd = self.0.as_raw_fd() as usize;
        let pointer = std::ptr::from_ref(&address) as usize;
        // SAFETY: the kernel reads size_of(sockaddr_xdp) bytes at `pointer`, which is alive; the struct is
        // five integers without padding.
        unsafe {
            call(
                libc::SYS_bind,
                [fd, pointer, size_of::<libc::sockaddr_xdp>(), 0, 0, 0],
            )
        }
        .map(drop)
        .map_err(|errno| {
            let (copy, wakeup, sg) = (to.copy, to.need_wakeup, to.multi_buffer);
            let shared = if to.shared.is_some() { " shared-umem" } else { "" };
            let args = format!(
                "ifindex={} queue={} copy={copy:?} need_wakeup={wakeup} multi_buffer={sg}{shared}",
                to.ifindex, to.queue
            );
            Error::new("bind(AF_XDP)", args, errno)
        })
    }

    /// Whether the bound socket got zero-copy (XDP_OPTIONS).
    ///
    /// # Errors
    /// `EOPNOTSUPP` on a kernel older than 5.3.
    pub fn is_zero_copy(&self) -> Result<bool> {
        let mut flags = 0u32;
        let call_name = "getsockopt(XDP_OPTIONS)";
        sockopt::get(
            self.as_fd(),
            libc::SOL_XDP,
            libc::XDP_OPTIONS,
            &mut flags,
            call_name,
            String::new,
        )?;
        Ok(flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What the kernel counted so far (XDP_STATISTICS).
    ///
    /// # Errors
    /// Whatever getsockopt(2) reports.
    pub fn statistics(&self) -> Result<Statistics> {
        let mut statistics = Statistics::default();
        let call_name = "getsockopt(XDP_STATISTICS)";
        sockopt::get(
            self.as_fd(),
            libc::SOL_XDP,
            libc::XDP_STATISTICS,
            &mut statistics,
            call_name,
            String::new,
        )?;
        Ok(statistics)
    }

    /// Asks for busy polling: the device is driven from the calls of this socket's owner and its interrupts
    /// stay off meanwhile. `micros` is how long one call spins, `budget` how many frames it takes at most.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN, `ENOPROTOOPT` on a kernel older than 5.11.
    pub fn busy_poll(&self, micros: u32, budget: u32) -> Result<()> {
        let set = |name, value: u32, call_name| {
            sockopt::set(
                self.as_fd(),
                libc::SOL_SOCKET,
                name,
                &(value as i32),
                call_name,
                || value.to_string(),
            )
        };
        set(libc::SO_PREFER_BUSY_POLL, 1, "setsockopt(SO_PREFER_BUSY_POLL)")?;
        set(libc::SO_BUSY_POLL, micros, "setsockopt(SO_BUSY_POLL)")?;
        set(
            libc::SO_BUSY_POLL_BUDGET,
            budget,
            "setsockopt(SO_BUSY_POLL_BUDGET)",
        )
    }

    /// Lets one [`XskSocket::wake_tx`] of a copy-mode socket send `frames` (at least 32, at most the size of
    /// the tx ring) instead of 32; false when the kernel is older than 6.18 and does not know the option.
    pub fn tx_budget(&self, frames: u32) -> bool {
        /// XDP_MAX_TX_SKB_BUDGET of include/uapi/linux/if_xdp.h.
        const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
        let call_name = "setsockopt(XDP_MAX_TX_SKB_BUDGET)";
        sockopt::set(
            self.as_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            &frames,
            call_name,
            String::new,
        )
        .is_ok()
    }

    /// Tells the kernel to look at the tx ring: an empty, non-blocking sendto(2).
    ///
    /// # Errors
    /// `EAGAIN` when there is more to send than one call takes, or no room in the completion ring or the
    /// send buffer; `EBUSY` when the device dropped a frame (its completion comes all the same); `ENETDOWN` when the
    /// device is down; `ENXIO` when it is gone.
    pub fn wake_tx(&self) -> std::result::Result<(), i32> {
        self.empty_call(libc::SYS_sendto)
    }

    /// Tells the kernel to look at the fill ring, and with busy polling drives the device: an empty,
    /// non-blocking recvfrom(2). On success the device is there and up.
    ///
    /// # Errors
    /// `ENETDOWN` when the device is down; `ENXIO` when it is gone.
    pub fn wake_rx(&self) -> std::result::Result<(), i32> {
        self.empty_call(libc::SYS_recvfrom)
    }

    fn empty_call(&self, number: libc::c_long) -> std::result::Result<(), i32> {
        let fd = self.0.as_raw_fd() as usize;
        // SAFETY: no buffer and no address are given, so the kernel touches no memory of ours.
        unsafe { call(number, [fd, 0, 0, libc::MSG_DONTWAIT as usize, 0, 0]) }.map(drop)
    }
}

impl From<XskSocket> for OwnedFd {
    fn from(socket: XskSocket) -> OwnedFd {
        socket.0
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_those_of_the_kernel_header() {
        assert_eq!(size_of::<UmemReg>(), 32);
        assert_eq!(size_of::<MmapOffsets>(), 128);
        assert_eq!(size_of::<Statistics>(), 48);
    }

    #[test]
    fn a_refused_bind_names_device_queue_and_mode() {
        let Ok(socket) = XskSocket::open() else {
            println!("SKIPPED a_refused_bind_names_device_queue_and_mode: needs CAP_NET_RAW");
            return;
        };
        let to = Bind {
            ifindex: 999_999,
            queue: 3,
            copy: CopyMode::ZeroCopy,
            need_wakeup: true,
            multi_buffer: false,
            shared: None,
        };
        let err = socket.bind(&to).unwrap_err();
        assert_eq!(err.code(), "ENODEV");
        assert!(
            err.to_string()
                .starts_with("bind(AF_XDP) ifindex=999999 queue=3 copy=ZeroCopy"),
            "{err}"
        );
    }
}
