//! A card: found by name, opened; what its port is like, and by which addresses it is reached.

use std::ffi::CStr;
use std::fmt;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::events::set_nonblocking;
use super::layout::{
    GID_TYPE_IB, GID_TYPE_ROCE_V1, GID_TYPE_ROCE_V2, IbvContext, IbvDevice, IbvGidEntry, IbvPortAttr,
    LINK_LAYER_ETHERNET, PORT_ACTIVE, VerbsContext,
};
use super::library::{Library, checked, failed, library};
use crate::{Error, Result};

/// Largest table of addresses that is read.
const GIDS_MAX: usize = 256;

/// How a port is reached at an address: RoCE is RDMA over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GidType {
    /// InfiniBand's own.
    InfiniBand,
    /// In Ethernet frames of its own type.
    RoceV1,
    /// In UDP packets.
    RoceV2,
}

/// An address of a port (GID).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gid {
    /// Its place in the port's table.
    pub index: u32,
    /// The address: an IPv6 one, or an IPv4 one mapped into it.
    pub address: [u8; 16],
    /// How it is reached.
    pub kind: GidType,
    /// The interface that it belongs to; 0 when there is none, or not in this namespace.
    pub ifindex: u32,
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.address).fmt(f)
    }
}

/// A port of a card, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// It carries.
    pub active: bool,
    /// Bytes of the largest message of one packet: 256 to 4096.
    pub mtu: u32,
    /// Ethernet, not InfiniBand.
    pub ethernet: bool,
    /// Entries of its table of addresses.
    pub gids: u32,
}

/// An opened card. The kernel's driver keeps it.
pub struct Device {
    pub(super) raw: *mut IbvContext,
    pub(super) library: &'static Library,
    name: String,
}

// SAFETY: the library's functions may be called for one context from any thread (rdma-core, "Multi-thread aware");
// nothing here is tied to the thread that opened it.
unsafe impl Send for Device {}
// SAFETY: as for Send.
unsafe impl Sync for Device {}

/// The names of the RDMA devices of this machine that the library can drive.
///
/// # Errors
/// `ENOENT` without the library; what listing them reports.
pub fn devices() -> Result<Vec<String>> {
    Ok(List::new(library()?)?.names())
}

/// The library's list of devices.
struct List {
    library: &'static Library,
    raw: *mut *mut IbvDevice,
    count: usize,
}

impl List {
    fn new(library: &'static Library) -> Result<List> {
        let mut count = 0;
        // SAFETY: `count` is a live integer that the call fills.
        let raw = unsafe { (library.ibv_get_device_list)(&raw mut count) };
        if raw.is_null() {
            return Err(failed("ibv_get_device_list", ""));
        }
        let count = usize::try_from(count).unwrap_or(0);
        Ok(List { library, raw, count })
    }

    fn devices(&self) -> &[*mut IbvDevice] {
        // SAFETY: the library gave a list of `count` pointers, which stays until it is freed in `drop`.
        unsafe { std::slice::from_raw_parts(self.raw, self.count) }
    }

    fn name(&self, device: *mut IbvDevice) -> String {
        // SAFETY: a device of the list, whose name is a string within it.
        let name = unsafe { (self.library.ibv_get_device_name)(device) };
        if name.is_null() {
            return String::new();
        }
        // SAFETY: not null, and ends with a zero byte; copied at once.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    fn names(&self) -> Vec<String> {
        self.devices().iter().map(|&device| self.name(device)).collect()
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list is the library's and freed once; an opened device stays valid.
        unsafe { (self.library.ibv_free_device_list)(self.raw) };
    }
}

impl Device {
    /// Opens the card of that name, e.g. `mlx5_0` or `rxe0`.
    ///
    /// # Errors
    /// `ENOENT` without the library; `ENODEV` when there is no such card, with the names of those there are; what
    /// opening it reports, e.g. `EACCES` on `/dev/infiniband/uverbsN`.
    pub fn open(name: &str) -> Result<Arc<Device>> {
        let library = library()?;
        let list = List::new(library)?;
        let Some(&found) = list.devices().iter().find(|&&device| list.name(device) == name) else {
            let args = format!("device={name} there={}", list.names().join(","));
            return Err(Error::new("ibv_open_device", args, libc::ENODEV));
        };
        // SAFETY: a device of the list, which is still there.
        let raw = unsafe { (library.ibv_open_device)(found) };
        if raw.is_null() {
            return Err(failed("ibv_open_device", format!("device={name}")));
        }
        let device = Arc::new(Device {
            raw,
            library,
            name: name.to_owned(),
        });
        // Events are asked for now and then, never waited for.
        set_nonblocking(device.async_fd(), "async events")?;
        Ok(device)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operations that stand in front of the context; `None` for a provider of before 2012.
    pub(super) fn extended(&self) -> Option<*const VerbsContext> {
        // SAFETY: the context is open; a provider with extended operations says so in this field (verbs_get_ctx of
        // verbs.h).
        let compat = unsafe { (*self.raw).abi_compat };
        if compat as usize != usize::MAX {
            return None;
        }
        let before = std::mem::offset_of!(VerbsContext, context);
        Some(self.raw.cast::<u8>().wrapping_sub(before).cast_const().cast())
    }

    /// The operation at `offset` of the structure in front of the context, where the library is new enough to have it.
    pub(super) fn operation<T: Copy>(
        &self,
        field: impl FnOnce(*const VerbsContext) -> *const Option<T>,
        offset: usize,
    ) -> Option<T> {
        let extended = self.extended()?;
        // SAFETY: `size` stands immediately before the context, in every version (verbs.h).
        let there = unsafe { (&raw const (*extended).size).read() };
        // As verbs_get_ctx_op of verbs.h: new fields are put in front, so the distance from the end decides.
        if there < size_of::<VerbsContext>() - offset {
            return None;
        }
        // SAFETY: the structure reaches as far to the front as this field, as was just seen.
        unsafe { field(extended).read() }
    }

    /// What a port is like now; ports count from 1.
    ///
    /// # Errors
    /// `EINVAL` for a port that is not there; `EOPNOTSUPP` where the library is too old.
    pub fn port(&self, port: u8) -> Result<PortFacts> {
        let args = || format!("device={} port={port}", self.name);
        let query = self.operation(
            |extended| {
                // SAFETY: only the place of the field is worked out; `extended` lies in one piece of memory with it.
                unsafe { &raw const (*extended).query_port }
            },
            std::mem::offset_of!(VerbsContext, query_port),
        );
        let Some(query) = query else {
            return Err(Error::new("ibv_query_port", args(), libc::EOPNOTSUPP));
        };
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut facts: IbvPortAttr = unsafe { std::mem::zeroed() };
        // SAFETY: the operation fills at most the bytes that it is told of.
        let result = unsafe { query(self.raw, port, &raw mut facts, size_of::<IbvPortAttr>()) };
        checked("ibv_query_port", args, result)?;
        let mtu = facts.active_mtu.clamp(1, 5);
        Ok(PortFacts {
            active: facts.state == PORT_ACTIVE,
            mtu: 128 << mtu,
            ethernet: facts.link_layer == LINK_LAYER_ETHERNET,
            gids: u32::try_from(facts.gid_tbl_len).unwrap_or(0),
        })
    }

    /// The addresses of a port that are set.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn gids(&self, port: u8) -> Result<Vec<Gid>> {
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut entries: Vec<IbvGidEntry> = vec![unsafe { std::mem::zeroed() }; GIDS_MAX];
        // SAFETY: the call fills at most GIDS_MAX entries of the size that it is told.
        let count = unsafe {
            (self.library._ibv_query_gid_table)(
                self.raw,
                entries.as_mut_ptr(),
                GIDS_MAX,
                0,
                size_of::<IbvGidEntry>(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let errno = i32::try_from(count.unsigned_abs()).unwrap_or(libc::EIO);
            return Err(Error::new(
                "ibv_query_gid_table",
                format!("device={}", self.name),
                errno,
            ));
        };
        entries.truncate(count);
        Ok(entries
            .iter()
            .filter(|entry| entry.port_num == u32::from(port))
            .filter_map(|entry| {
                let kind = match entry.gid_type {
                    GID_TYPE_IB => GidType::InfiniBand,
                    GID_TYPE_ROCE_V1 => GidType::RoceV1,
                    GID_TYPE_ROCE_V2 => GidType::RoceV2,
                    _ => return None,
                };
                Some(Gid {
                    index: entry.gid_index,
                    address: entry.gid.0,
                    kind,
                    ifindex: entry.ndev_ifindex,
                })
            })
            .collect())
    }

    pub(super) fn async_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the context is open, and its descriptor with it.
        unsafe { BorrowedFd::borrow_raw((*self.raw).async_fd) }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: opened once and closed once; everything made of it holds it, and is gone by now.
        unsafe { (self.library.ibv_close_device)(self.raw) };
    }
}

/// A pointer that a call gave, or its error.
pub(super) fn made<T>(raw: *mut T, call: &'static str, args: impl FnOnce() -> String) -> Result<*mut T> {
    if raw.is_null() {
        return Err(failed(call, args()));
    }
    Ok(raw)
}
