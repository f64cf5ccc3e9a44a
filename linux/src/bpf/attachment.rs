//! Programs attached to an interface: by bpf_link, so that the end of the process ends the attachment too.

use super::attr::{Command, LinkCreate, LinkUpdate, ProgQuery, bpf, bpf_fd, info, raw};
use super::pin;
use super::program::Program;
use crate::netlink::tc;
use crate::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Where an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel makes an skb.
    Driver,
    /// In the stack, on an skb: for drivers without XDP.
    Generic,
}

/// The side of an interface that a traffic control program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcDirection {
    /// What arrives.
    Ingress,
    /// What leaves.
    Egress,
}

/// An attached program; dropping it detaches.
#[derive(Debug)]
pub struct Attachment(Kind);

#[derive(Debug)]
enum Kind {
    Link(OwnedFd),
    Filter(tc::Filter),
}

const CALL: &str = "bpf(BPF_LINK_CREATE)";
/// enum bpf_attach_type.
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// include/uapi/linux/if_link.h.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

impl Attachment {
    /// Attaches an XDP program to interface `ifindex` of the calling thread's namespace (kernel 5.9).
    /// EBUSY when another program is there, EOPNOTSUPP when the driver has no XDP.
    pub fn xdp(program: &Program, ifindex: u32, mode: XdpMode) -> Result<Self> {
        let flags = match mode {
            XdpMode::Driver => XDP_FLAGS_DRV_MODE,
            XdpMode::Generic => XDP_FLAGS_SKB_MODE,
        };
        link(program, ifindex, BPF_XDP, flags)
            .map(|fd| Self(Kind::Link(fd)))
            .map_err(|errno| {
                Error::new(
                    CALL,
                    format!("xdp ifindex={ifindex} mode={mode:?} program={}", program.id()),
                    errno,
                )
            })
    }

    /// Attaches a traffic control program to interface `ifindex` of the calling thread's namespace: by
    /// tcx (kernel 6.6), or where there is none by a filter of a clsact qdisc. The program's result is a
    /// TC_ACT code in both. The filter, unlike the link, outlives a process that is killed.
    pub fn tc(program: &Program, ifindex: u32, direction: TcDirection) -> Result<Self> {
        let kind = match direction {
            TcDirection::Ingress => BPF_TCX_INGRESS,
            TcDirection::Egress => BPF_TCX_EGRESS,
        };
        match link(program, ifindex, kind, 0) {
            Ok(fd) => Ok(Self(Kind::Link(fd))),
            // A kernel without tcx does not know the attach type.
            Err(libc::EINVAL | libc::EOPNOTSUPP) => Self::tc_filter(program, ifindex, direction, "bifurcate"),
            Err(errno) => Err(Error::new(
                CALL,
                format!("tcx ifindex={ifindex} {direction:?} program={}", program.id()),
                errno,
            )),
        }
    }

    /// As [`Attachment::tc`], by a clsact filter in any case. By `name`, [`crate::netlink::ingress::delete`] finds it when this
    /// process has been killed.
    pub fn tc_filter(program: &Program, ifindex: u32, direction: TcDirection, name: &str) -> Result<Self> {
        let classifier = tc::Classifier::Program {
            program: program.as_fd(),
            name,
        };
        tc::Filter::add(ifindex, direction, &classifier, tc::Action::Direct)
            .map(|filter| Self(Kind::Filter(filter)))
    }

    /// Puts `program` in the place of the one that runs, at once: no frame meets neither or both (kernel 5.7).
    pub fn update(&self, program: &Program) -> Result<()> {
        let call = "bpf(BPF_LINK_UPDATE)";
        let Kind::Link(fd) = &self.0 else {
            return Err(Error::new(call, "a filter is no link", libc::EOPNOTSUPP));
        };
        let mut attr = LinkUpdate {
            link_fd: raw(fd.as_fd()),
            new_prog_fd: raw(program.as_fd()),
            ..Default::default()
        };
        // SAFETY: the block of BPF_LINK_UPDATE holds no address.
        unsafe { bpf(Command::LinkUpdate, &mut attr) }
            .map(drop)
            .map_err(|errno| Error::new(call, format!("program={}", program.id()), errno))
    }

    /// Names the link in a BPF file system: from then on the attachment outlives this object and the process, until
    /// the name is removed too.
    pub fn pin(&self, path: &Path) -> Result<()> {
        match &self.0 {
            Kind::Link(fd) => pin::pin(fd.as_fd(), path),
            Kind::Filter(_) => Err(Error::new(
                "bpf(BPF_OBJ_PIN)",
                "a filter is no link",
                libc::EOPNOTSUPP,
            )),
        }
    }

    /// The link that was pinned as `path`.
    pub fn pinned(path: &Path) -> Result<Self> {
        pin::open(path).map(|fd| Self(Kind::Link(fd)))
    }

    /// True while the kernel still has it: a deleted interface takes its attachments along.
    pub fn attached(&self) -> Result<bool> {
        match &self.0 {
            Kind::Filter(filter) => filter.present(),
            Kind::Link(fd) => {
                // struct bpf_link_info: type, id, prog_id, padding, and for XDP and tcx the ifindex, which
                // is zero once the interface is gone.
                let [.., ifindex] = info::<5>(fd.as_fd())
                    .map_err(|errno| Error::new("bpf(BPF_OBJ_GET_INFO_BY_FD)", "link", errno))?;
                Ok(ifindex != 0)
            }
        }
    }
}

/// Whether the kernel has tcx (6.6), asked about interface `ifindex` of the calling thread's namespace.
///
/// # Errors
/// `ENODEV` when there is no such interface, `EPERM` without CAP_NET_ADMIN.
pub fn has_tcx(ifindex: u32) -> Result<bool> {
    let mut attr = ProgQuery {
        target_ifindex: ifindex,
        attach_type: BPF_TCX_INGRESS,
        ..Default::default()
    };
    // SAFETY: the block of BPF_PROG_QUERY; with no room for program ids it holds no address.
    match unsafe { bpf(Command::ProgQuery, &mut attr) } {
        Ok(_) | Err(libc::ENOENT) => Ok(true),
        // A kernel without tcx does not know the attach type.
        Err(libc::EINVAL | libc::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(Error::new(
            "bpf(BPF_PROG_QUERY)",
            format!("tcx ifindex={ifindex}"),
            errno,
        )),
    }
}

fn link(program: &Program, ifindex: u32, attach_type: u32, flags: u32) -> std::result::Result<OwnedFd, i32> {
    let mut attr = LinkCreate {
        prog_fd: raw(program.as_fd()),
        target_ifindex: ifindex,
        attach_type,
        flags,
        ..Default::default()
    };
    // SAFETY: the block of BPF_LINK_CREATE for these attach types holds no address.
    unsafe { bpf_fd(Command::LinkCreate, &mut attr) }
}
