//! What is made of an opened card: protection domain, memory region, completion queue, address handle.

use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::Arc;

use super::device::{Device, Gid, made};
use super::events::set_nonblocking;
use super::layout::{
    ACCESS_LOCAL_WRITE, IbvAh, IbvAhAttr, IbvCompChannel, IbvCq, IbvGlobalRoute, IbvMr, IbvPd, IbvWc, RawGid,
};
use super::library::checked;
use super::work::Completions;
use crate::memory::Mapping;
use crate::{Error, Result};

/// Hops that a packet to another port may take: as many as IPv6 has.
const HOP_LIMIT: u8 = 64;

/// The library's objects may be used from any thread (rdma-core, "Multi-thread aware"); what changes one takes a lock
/// of the library's.
macro_rules! any_thread {
    ($($name:ident)*) => {
        $(
            // SAFETY: tied to no thread, as said above.
            unsafe impl Send for $name {}
            // SAFETY: as for Send: calls for one object from several threads are the library's to order.
            unsafe impl Sync for $name {}
        )*
    };
}
any_thread! { Domain MemoryRegion CompletionChannel CompletionQueue AddressHandle }

/// A protection domain: its queue pairs reach its memory regions, and no others.
#[derive(Debug)]
pub struct Domain {
    pub(super) raw: *mut IbvPd,
    device: Arc<Device>,
}

impl Domain {
    /// A new one.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new(device: &Arc<Device>) -> Result<Arc<Domain>> {
        // SAFETY: the device is open, and kept so.
        let raw = unsafe { (device.library.ibv_alloc_pd)(device.raw) };
        let raw = made(raw, "ibv_alloc_pd", || format!("device={}", device.name()))?;
        Ok(Arc::new(Domain {
            raw,
            device: Arc::clone(device),
        }))
    }

    /// The card that it is of.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: made once and freed once; what was made of it holds it, and is gone by now.
        unsafe { (self.device.library.ibv_dealloc_pd)(self.raw) };
    }
}

/// Memory that the card reaches for the queue pairs of a domain, and that stays in its place meanwhile.
#[derive(Debug)]
pub struct MemoryRegion {
    raw: *mut IbvMr,
    domain: Arc<Domain>,
    lkey: u32,
}

impl MemoryRegion {
    /// Lets the card read and write the first `len` bytes of a mapping. Other cards cannot name it: remote access is
    /// not given.
    ///
    /// # Errors
    /// `EINVAL` when the mapping is shorter; `ENOMEM` where locked memory is limited (RLIMIT_MEMLOCK); what the card
    /// cannot hold.
    pub fn register(domain: &Arc<Domain>, mapping: &Mapping, len: usize) -> Result<MemoryRegion> {
        let args = || format!("device={} len={len}", domain.device.name());
        if len > mapping.len() {
            return Err(Error::new("ibv_reg_mr", args(), libc::EINVAL));
        }
        // SAFETY: `len` bytes are mapped there. The kernel pins their pages: should the mapping go first, the card
        // reaches those pages and nothing else.
        let raw = unsafe {
            (domain.device.library.ibv_reg_mr)(
                domain.raw,
                mapping.base().as_ptr().cast(),
                len,
                ACCESS_LOCAL_WRITE,
            )
        };
        let raw = made(raw, "ibv_reg_mr", args)?;
        // SAFETY: just made; the key never changes.
        let lkey = unsafe { (*raw).lkey };
        Ok(MemoryRegion {
            raw,
            domain: Arc::clone(domain),
            lkey,
        })
    }

    /// By which work requests name it.
    #[must_use]
    pub fn lkey(&self) -> u32 {
        self.lkey
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        // SAFETY: registered once and given back once.
        unsafe { (self.domain.device.library.ibv_dereg_mr)(self.raw) };
    }
}

/// A descriptor on which completion events come.
#[derive(Debug)]
pub struct CompletionChannel {
    raw: *mut IbvCompChannel,
    device: Arc<Device>,
}

impl CompletionChannel {
    /// A new one, never waited on by the library.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn new(device: &Arc<Device>) -> Result<Arc<CompletionChannel>> {
        // SAFETY: the device is open, and kept so.
        let raw = unsafe { (device.library.ibv_create_comp_channel)(device.raw) };
        let raw = made(raw, "ibv_create_comp_channel", || {
            format!("device={}", device.name())
        })?;
        let channel = CompletionChannel {
            raw,
            device: Arc::clone(device),
        };
        set_nonblocking(channel.fd(), "completion events")?;
        Ok(Arc::new(channel))
    }

    /// Readable when an event has come.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel is there, and its descriptor with it.
        unsafe { BorrowedFd::borrow_raw((*self.raw).fd) }
    }
}

impl Drop for CompletionChannel {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once; its completion queue holds it, and is gone by now.
        unsafe { (self.device.library.ibv_destroy_comp_channel)(self.raw) };
    }
}

type Poll = unsafe extern "C" fn(*mut IbvCq, i32, *mut IbvWc) -> i32;
type Notify = unsafe extern "C" fn(*mut IbvCq, i32) -> i32;

/// A queue of what work requests came to.
#[derive(Debug)]
pub struct CompletionQueue {
    pub(super) raw: *mut IbvCq,
    poll: Poll,
    notify: Notify,
    channel: Option<Arc<CompletionChannel>>,
    device: Arc<Device>,
}

impl CompletionQueue {
    /// One with room for at least `entries` completions; `channel` is for it alone.
    ///
    /// # Errors
    /// `EINVAL` for more than the card has; `ENOMEM`.
    pub fn new(
        device: &Arc<Device>,
        entries: u32,
        channel: Option<Arc<CompletionChannel>>,
    ) -> Result<CompletionQueue> {
        let args = || format!("device={} entries={entries}", device.name());
        let count = i32::try_from(entries).map_err(|_| Error::new("ibv_create_cq", args(), libc::EINVAL))?;
        let raw_channel = channel.as_ref().map_or(ptr::null_mut(), |channel| channel.raw);
        // SAFETY: device and channel are there, and kept so; the call keeps no other pointer.
        let raw =
            unsafe { (device.library.ibv_create_cq)(device.raw, count, ptr::null_mut(), raw_channel, 0) };
        let raw = made(raw, "ibv_create_cq", args)?;
        // SAFETY: the context is open; its operations do not change.
        let (poll, notify) = unsafe { ((*device.raw).ops.poll_cq, (*device.raw).ops.req_notify_cq) };
        match (poll, notify) {
            (Some(poll), Some(notify)) => Ok(CompletionQueue {
                raw,
                poll,
                notify,
                channel,
                device: Arc::clone(device),
            }),
            _ => {
                // SAFETY: just made, and nobody has it.
                unsafe { (device.library.ibv_destroy_cq)(raw) };
                Err(Error::new("ibv_create_cq", args(), libc::EOPNOTSUPP))
            }
        }
    }

    /// Takes completions, as many as there is room for in `into`; gives how many. Several threads may not poll with one
    /// `into`, which the borrow says.
    ///
    /// # Errors
    /// `EIO` when the queue cannot be polled any more.
    #[inline]
    pub fn poll(&self, into: &mut Completions) -> Result<usize> {
        let (at, room) = into.space();
        // SAFETY: the queue is there; the operation writes at most `room` completions at `at`.
        let count = unsafe { (self.poll)(self.raw, room, at) };
        match usize::try_from(count) {
            Ok(count) => {
                into.filled(count);
                Ok(count)
            }
            Err(_) => Err(Error::new(
                "ibv_poll_cq",
                format!("device={}", self.device.name()),
                libc::EIO,
            )),
        }
    }

    /// Has the next completion that comes raise an event on the channel.
    ///
    /// # Errors
    /// What the card reports.
    pub fn arm(&self) -> Result<()> {
        // SAFETY: the queue is there. 0: for every completion, not only those that were solicited.
        let result = unsafe { (self.notify)(self.raw, 0) };
        checked(
            "ibv_req_notify_cq",
            || format!("device={}", self.device.name()),
            result,
        )
    }

    /// Takes an event of this queue from its channel, where one has come. Never waits.
    #[must_use]
    pub fn take_event(&self) -> bool {
        let Some(channel) = &self.channel else {
            return false;
        };
        let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the channel is there; the call fills both pointers or gives an error, and does not wait, since its
        // descriptor was made not to.
        let result =
            unsafe { (self.device.library.ibv_get_cq_event)(channel.raw, &raw mut queue, &raw mut context) };
        if result != 0 || queue != self.raw {
            return false;
        }
        // SAFETY: one event of this queue was just taken: whoever destroys it waits until that is acknowledged.
        unsafe { (self.device.library.ibv_ack_cq_events)(self.raw, 1) };
        true
    }

    /// Readable when an event has come.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(|channel| channel.fd())
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once; its queue pair holds it, and is gone by now.
        unsafe { (self.device.library.ibv_destroy_cq)(self.raw) };
    }
}

/// The way to another port, for datagrams.
#[derive(Debug)]
pub struct AddressHandle {
    pub(super) raw: *mut IbvAh,
    domain: Arc<Domain>,
}

impl AddressHandle {
    /// The way from our address `from` of port `port` to the address `to`. The kernel may ask the neighbours for it,
    /// which takes up to some seconds.
    ///
    /// # Errors
    /// `ETIMEDOUT`, `EHOSTUNREACH` or `EINVAL` when there is no way there; `ENOMEM`.
    pub fn new(domain: &Arc<Domain>, port: u8, from: &Gid, to: [u8; 16]) -> Result<AddressHandle> {
        let args = || {
            let to = std::net::Ipv6Addr::from(to);
            format!("device={} from={from} to={to}", domain.device.name())
        };
        let index =
            u8::try_from(from.index).map_err(|_| Error::new("ibv_create_ah", args(), libc::EINVAL))?;
        let mut attributes = IbvAhAttr {
            grh: IbvGlobalRoute {
                dgid: RawGid(to),
                flow_label: 0,
                sgid_index: index,
                hop_limit: HOP_LIMIT,
                traffic_class: 0,
            },
            dlid: 0,
            sl: 0,
            src_path_bits: 0,
            static_rate: 0,
            is_global: 1,
            port_num: port,
        };
        // SAFETY: the domain is there, and kept so; the attributes are read during the call alone.
        let raw = unsafe { (domain.device.library.ibv_create_ah)(domain.raw, &raw mut attributes) };
        let raw = made(raw, "ibv_create_ah", args)?;
        Ok(AddressHandle {
            raw,
            domain: Arc::clone(domain),
        })
    }
}

impl Drop for AddressHandle {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once.
        unsafe { (self.domain.device.library.ibv_destroy_ah)(self.raw) };
    }
}
