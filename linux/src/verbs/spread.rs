//! Spreading raw packets over receive queues by their hash (RSS). Not run on hardware: no software device has it.

use std::ptr;
use std::sync::Arc;

use super::device::{Device, made};
use super::layout::{
    IbvQp, IbvQpCap, IbvQpInitAttrEx, IbvRecvWr, IbvRwqIndTable, IbvRwqIndTableInitAttr, IbvRxHashConf,
    IbvWq, IbvWqAttr, IbvWqInitAttr, QP_INIT_ATTR_IND_TABLE, QP_INIT_ATTR_PD, QP_INIT_ATTR_RX_HASH,
    QPT_RAW_PACKET, RX_HASH_IPV4, RX_HASH_IPV6, RX_HASH_TCP, RX_HASH_TOEPLITZ, RX_HASH_UDP, VerbsContext,
    WQ_ATTR_STATE, WQS_RDY, WQS_RESET, WQT_RQ,
};
use super::library::checked;
use super::objects::{CompletionQueue, Domain};
use super::work::Receives;
use crate::{Error, Result};

/// Bytes of a Toeplitz key: 16 for each address of IPv6, 4 for the ports, 4 for the window.
pub const KEY_BYTES: usize = 40;

/// What a packet's hash is of. No card takes IPv4 and IPv6, or TCP and UDP, in one hash (`enum ibv_rx_hash_fields`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hashed {
    /// Addresses of IPv4.
    pub ipv4: bool,
    /// Addresses of IPv6.
    pub ipv6: bool,
    /// Ports of TCP.
    pub tcp: bool,
    /// Ports of UDP.
    pub udp: bool,
}

impl Hashed {
    fn mask(self) -> u64 {
        let part = |with: bool, bits: u64| if with { bits } else { 0 };
        let all = part(self.ipv4, RX_HASH_IPV4)
            | part(self.ipv6, RX_HASH_IPV6)
            | part(self.tcp, RX_HASH_TCP)
            | part(self.udp, RX_HASH_UDP);
        // There is no hash of nothing: packets without these fields go to the table's first queue.
        if all == 0 { RX_HASH_IPV4 } else { all }
    }
}

macro_rules! operation {
    ($device:expr, $field:ident) => {
        $device.operation(
            |extended| {
                // SAFETY: only the place of the field is worked out; it lies in one piece of memory with `extended`.
                unsafe { &raw const (*extended).$field }
            },
            std::mem::offset_of!(VerbsContext, $field),
        )
    };
}

fn lacks(call: &'static str, device: &Device) -> Error {
    Error::new(call, format!("device={}", device.name()), libc::EOPNOTSUPP)
}

type Modify = unsafe extern "C" fn(*mut IbvWq, *mut IbvWqAttr) -> i32;
type PostReceive = unsafe extern "C" fn(*mut IbvWq, *mut IbvRecvWr, *mut *mut IbvRecvWr) -> i32;

/// A receive queue that is part of no queue pair.
#[derive(Debug)]
pub struct WorkQueue {
    raw: *mut IbvWq,
    modify: Modify,
    destroy: unsafe extern "C" fn(*mut IbvWq) -> i32,
    post_receive: PostReceive,
    /// Where receives complete.
    pub received: Arc<CompletionQueue>,
    domain: Arc<Domain>,
}

// SAFETY: the library's functions may be called for one queue from any thread (rdma-core, "Multi-thread aware").
unsafe impl Send for WorkQueue {}
// SAFETY: as for Send.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// One that holds `receives` requests, in the state RESET.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the card has none; `EINVAL`, `ENOMEM`.
    pub fn new(domain: &Arc<Domain>, received: &Arc<CompletionQueue>, receives: u32) -> Result<WorkQueue> {
        let device = domain.device();
        let (Some(create), Some(modify), Some(destroy)) = (
            operation!(device, create_wq),
            operation!(device, modify_wq),
            operation!(device, destroy_wq),
        ) else {
            return Err(lacks("ibv_create_wq", device));
        };
        let mut attributes = IbvWqInitAttr {
            wq_context: ptr::null_mut(),
            wq_type: WQT_RQ,
            max_wr: receives,
            max_sge: 1,
            pd: domain.raw,
            cq: received.raw,
            comp_mask: 0,
            create_flags: 0,
        };
        let args = || format!("device={} receives={receives}", device.name());
        // SAFETY: device, domain and completion queue are there, and kept so.
        let raw = made(
            unsafe { create(device.raw, &raw mut attributes) },
            "ibv_create_wq",
            args,
        )?;
        // SAFETY: just made; its operation does not change.
        let Some(post_receive) = (unsafe { (*raw).post_recv }) else {
            // SAFETY: just made, and nobody has it.
            unsafe { destroy(raw) };
            return Err(lacks("ibv_create_wq", device));
        };
        Ok(WorkQueue {
            raw,
            modify,
            destroy,
            post_receive,
            received: Arc::clone(received),
            domain: Arc::clone(domain),
        })
    }

    fn set(&self, state: i32) -> Result<()> {
        let mut attributes = IbvWqAttr {
            attr_mask: WQ_ATTR_STATE,
            wq_state: state,
            curr_wq_state: 0,
            flags: 0,
            flags_mask: 0,
        };
        // SAFETY: the queue is there; the attributes are read during the call alone.
        let result = unsafe { (self.modify)(self.raw, &raw mut attributes) };
        let name = self.domain.device().name();
        checked("ibv_modify_wq", || format!("device={name} state={state}"), result)
    }

    /// From RESET to a state in which it receives.
    ///
    /// # Errors
    /// What the card reports.
    pub fn start(&self) -> Result<()> {
        self.set(WQS_RDY)
    }

    /// To RESET: the card has forgotten every request.
    ///
    /// # Errors
    /// What the card reports.
    pub fn reset(&self) -> Result<()> {
        self.set(WQS_RESET)
    }

    /// As `QueuePair::post_receives`.
    #[inline]
    pub fn post_receives(&self, list: &mut Receives) -> (usize, Result<()>) {
        // SAFETY: the queue is there; the list is chained and ends with null, and the operation copies it. What the
        // requests point to the card checks against the memory region of their key.
        let (taken, result) =
            list.post(|first, refused| unsafe { (self.post_receive)(self.raw, first, refused) });
        let name = self.domain.device().name();
        (
            taken,
            checked("ibv_post_wq_recv", || format!("device={name}"), result),
        )
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once; what spreads packets over it holds it, and is gone by now.
        unsafe { (self.destroy)(self.raw) };
    }
}

/// A queue pair of raw packets that only spreads them over receive queues.
#[derive(Debug)]
pub struct Spread {
    pub(super) raw: *mut IbvQp,
    table: *mut IbvRwqIndTable,
    destroy_table: unsafe extern "C" fn(*mut IbvRwqIndTable) -> i32,
    domain: Arc<Domain>,
    _queues: Vec<Arc<WorkQueue>>,
}

// SAFETY: nothing is done with it but its end, which any thread may bring about.
unsafe impl Send for Spread {}
// SAFETY: as for Send.
unsafe impl Sync for Spread {}

impl Spread {
    /// Over `queues`, by the Toeplitz hash of what `hashed` names. The table has as many entries as the next power of
    /// two, so queues in front get more when there are not as many.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the card has none; `EINVAL` for a hash that it cannot do, or no queue; `ENOMEM`, `EPERM`.
    pub fn new(
        domain: &Arc<Domain>,
        queues: &[Arc<WorkQueue>],
        hashed: Hashed,
        key: &[u8; KEY_BYTES],
    ) -> Result<Spread> {
        let device = domain.device();
        let args = || format!("device={} queues={} {hashed:?}", device.name(), queues.len());
        if queues.is_empty() {
            return Err(Error::new("ibv_create_rwq_ind_table", args(), libc::EINVAL));
        }
        let (Some(create), Some(create_table), Some(destroy_table)) = (
            operation!(device, create_qp_ex),
            operation!(device, create_rwq_ind_table),
            operation!(device, destroy_rwq_ind_table),
        ) else {
            return Err(lacks("ibv_create_rwq_ind_table", device));
        };
        let entries = queues.len().next_power_of_two();
        let mut list: Vec<*mut IbvWq> = queues
            .iter()
            .map(|queue| queue.raw)
            .cycle()
            .take(entries)
            .collect();
        let mut attributes = IbvRwqIndTableInitAttr {
            log_ind_tbl_size: entries.trailing_zeros(),
            ind_tbl: list.as_mut_ptr(),
            comp_mask: 0,
        };
        // SAFETY: the queues are there, and kept so; the list has as many entries as is said, and is read during the call
        // alone.
        let table = unsafe { create_table(device.raw, &raw mut attributes) };
        let table = made(table, "ibv_create_rwq_ind_table", args)?;
        let mut key = *key;
        let mut attributes = IbvQpInitAttrEx {
            qp_context: ptr::null_mut(),
            send_cq: ptr::null_mut(),
            recv_cq: ptr::null_mut(),
            srq: ptr::null_mut(),
            cap: IbvQpCap {
                max_send_wr: 0,
                max_recv_wr: 0,
                max_send_sge: 0,
                max_recv_sge: 0,
                max_inline_data: 0,
            },
            qp_type: QPT_RAW_PACKET,
            sq_sig_all: 0,
            comp_mask: QP_INIT_ATTR_PD | QP_INIT_ATTR_IND_TABLE | QP_INIT_ATTR_RX_HASH,
            pd: domain.raw,
            xrcd: ptr::null_mut(),
            create_flags: 0,
            max_tso_header: 0,
            rwq_ind_tbl: table,
            rx_hash_conf: IbvRxHashConf {
                rx_hash_function: RX_HASH_TOEPLITZ,
                rx_hash_key_len: KEY_BYTES as u8,
                rx_hash_key: key.as_mut_ptr(),
                rx_hash_fields_mask: hashed.mask(),
            },
            source_qpn: 0,
            send_ops_flags: 0,
        };
        // SAFETY: domain and table are there, and kept so; attributes and key are read during the call alone.
        let raw = unsafe { create(device.raw, &raw mut attributes) };
        let raw = made(raw, "ibv_create_qp", args).inspect_err(|_| {
            // SAFETY: just made, and nobody has it.
            unsafe { destroy_table(table) };
        })?;
        Ok(Spread {
            raw,
            table,
            destroy_table,
            domain: Arc::clone(domain),
            _queues: queues.to_vec(),
        })
    }

    /// The domain that it is of.
    #[must_use]
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        // SAFETY: each made once and destroyed once, the queue pair before its table, both before the queues.
        unsafe {
            (self.domain.device().library.ibv_destroy_qp)(self.raw);
            (self.destroy_table)(self.table);
        }
    }
}
