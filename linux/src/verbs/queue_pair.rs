//! A queue pair: made, moved through its states, given work.

use std::ptr;
use std::sync::Arc;

use super::device::made;
use super::layout::{
    IbvQp, IbvQpAttr, IbvQpCap, IbvQpInitAttr, IbvRecvWr, IbvSendWr, QP_PKEY_INDEX, QP_PORT, QP_QKEY,
    QP_SQ_PSN, QP_STATE, QPS_ERR, QPS_INIT, QPS_RESET, QPS_RTR, QPS_RTS, QPT_RAW_PACKET, QPT_UD,
};
use super::library::checked;
use super::objects::{CompletionQueue, Domain};
use super::work::{Destination, Receives, Sends};
use crate::{Error, Result};

/// What a queue pair carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ethernet frames, which flow rules bring.
    RawPacket,
    /// Datagrams (UD): messages of one packet, between queue pairs that know this key.
    Datagram {
        /// The key. With its highest bit only a process with CAP_NET_RAW could use it.
        qkey: u32,
    },
}

impl Kind {
    pub(super) fn number(self) -> i32 {
        match self {
            Kind::RawPacket => QPT_RAW_PACKET,
            Kind::Datagram { .. } => QPT_UD,
        }
    }

    /// Its name in the header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::RawPacket => "IBV_QPT_RAW_PACKET",
            Kind::Datagram { .. } => "IBV_QPT_UD",
        }
    }
}

/// How many work requests a queue pair holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// To send.
    pub sends: u32,
    /// To receive.
    pub receives: u32,
}

type PostSend = unsafe extern "C" fn(*mut IbvQp, *mut IbvSendWr, *mut *mut IbvSendWr) -> i32;
type PostReceive = unsafe extern "C" fn(*mut IbvQp, *mut IbvRecvWr, *mut *mut IbvRecvWr) -> i32;

/// A queue pair. Two threads may give it work at a time, one to send and one to receive.
#[derive(Debug)]
pub struct QueuePair {
    pub(super) raw: *mut IbvQp,
    kind: Kind,
    port: u8,
    number: u32,
    post_send: PostSend,
    post_receive: PostReceive,
    /// Where sends complete.
    pub sent: Arc<CompletionQueue>,
    /// Where receives complete.
    pub received: Arc<CompletionQueue>,
    domain: Arc<Domain>,
}

// SAFETY: the library's functions may be called for one queue pair from any thread (rdma-core, "Multi-thread aware").
unsafe impl Send for QueuePair {}
// SAFETY: as for Send; posting takes a lock of the library's for each direction.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    /// One of port `port`, in the state RESET: it takes no work yet.
    ///
    /// # Errors
    /// `EOPNOTSUPP` (of some cards `EINVAL`) when the card has none of that kind; `EPERM` for raw packets without
    /// CAP_NET_RAW; `ENOMEM`, or `EINVAL` for more work requests than the card takes.
    pub fn new(
        domain: &Arc<Domain>,
        port: u8,
        kind: Kind,
        sent: &Arc<CompletionQueue>,
        received: &Arc<CompletionQueue>,
        capacity: Capacity,
    ) -> Result<QueuePair> {
        let device = domain.device();
        let args = || {
            let Capacity { sends, receives } = capacity;
            format!(
                "device={} type={} sends={sends} receives={receives}",
                device.name(),
                kind.name()
            )
        };
        let mut attributes = IbvQpInitAttr {
            qp_context: ptr::null_mut(),
            send_cq: sent.raw,
            recv_cq: received.raw,
            srq: ptr::null_mut(),
            cap: IbvQpCap {
                max_send_wr: capacity.sends,
                max_recv_wr: capacity.receives,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: 0,
            },
            qp_type: kind.number(),
            sq_sig_all: 0,
        };
        // SAFETY: domain and completion queues are there, and kept so; the attributes are the call's during it alone.
        let raw = unsafe { (device.library.ibv_create_qp)(domain.raw, &raw mut attributes) };
        let raw = made(raw, "ibv_create_qp", args)?;
        // SAFETY: the context is open; its operations do not change.
        let (post_send, post_receive) = unsafe { ((*device.raw).ops.post_send, (*device.raw).ops.post_recv) };
        let (Some(post_send), Some(post_receive)) = (post_send, post_receive) else {
            // SAFETY: just made, and nobody has it.
            unsafe { (device.library.ibv_destroy_qp)(raw) };
            return Err(Error::new("ibv_create_qp", args(), libc::EOPNOTSUPP));
        };
        Ok(QueuePair {
            raw,
            kind,
            port,
            // SAFETY: just made; the number never changes.
            number: unsafe { (*raw).qp_num },
            post_send,
            post_receive,
            sent: Arc::clone(sent),
            received: Arc::clone(received),
            domain: Arc::clone(domain),
        })
    }

    /// Its number on the card, by which datagrams name it.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The domain that it is of.
    #[must_use]
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    fn modify(&self, state: i32, mask: i32) -> Result<()> {
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut attributes: IbvQpAttr = unsafe { std::mem::zeroed() };
        attributes.qp_state = state;
        attributes.port_num = self.port;
        if let Kind::Datagram { qkey } = self.kind {
            attributes.qkey = qkey;
        }
        let library = self.domain.device().library;
        // SAFETY: the queue pair is there; the attributes are read during the call alone.
        let result = unsafe { (library.ibv_modify_qp)(self.raw, &raw mut attributes, mask) };
        let args = || {
            let name = match state {
                QPS_RESET => "RESET",
                QPS_INIT => "INIT",
                QPS_RTR => "RTR",
                QPS_RTS => "RTS",
                _ => "ERR",
            };
            format!(
                "device={} qp={} state={name}",
                self.domain.device().name(),
                self.number
            )
        };
        checked("ibv_modify_qp", args, result)
    }

    /// From RESET to a state in which it receives and sends: INIT, RTR (ready to receive), RTS (ready to send).
    ///
    /// # Errors
    /// What the card reports.
    pub fn start(&self) -> Result<()> {
        match self.kind {
            Kind::RawPacket => {
                self.modify(QPS_INIT, QP_STATE | QP_PORT)?;
                self.modify(QPS_RTR, QP_STATE)?;
                self.modify(QPS_RTS, QP_STATE)
            }
            Kind::Datagram { .. } => {
                self.modify(QPS_INIT, QP_STATE | QP_PKEY_INDEX | QP_PORT | QP_QKEY)?;
                self.modify(QPS_RTR, QP_STATE)?;
                self.modify(QPS_RTS, QP_STATE | QP_SQ_PSN)
            }
        }
    }

    /// To RESET: the card has forgotten every work request, and completes none of them any more.
    ///
    /// # Errors
    /// What the card reports.
    pub fn reset(&self) -> Result<()> {
        self.modify(QPS_RESET, QP_STATE)
    }

    /// To ERR: every work request comes back, flushed.
    ///
    /// # Errors
    /// What the card reports.
    pub fn fail(&self) -> Result<()> {
        self.modify(QPS_ERR, QP_STATE)
    }

    /// Posts a list of receives and empties it; gives how many the card took, and why not all.
    #[inline]
    pub fn post_receives(&self, list: &mut Receives) -> (usize, Result<()>) {
        // SAFETY: the queue pair is there; the list is chained and ends with null, and the operation copies it. What the
        // requests point to the card checks against the memory region of their key.
        let (taken, result) =
            list.post(|first, refused| unsafe { (self.post_receive)(self.raw, first, refused) });
        (taken, self.posted("ibv_post_recv", result))
    }

    /// Posts a list of sends and empties it, each to `destination` where there is one, the last one signalled.
    #[inline]
    pub fn post_sends(&self, list: &mut Sends, destination: Option<&Destination<'_>>) -> (usize, Result<()>) {
        // SAFETY: as in `post_receives`; the address handle is borrowed for the length of the call, in which the
        // operation takes what it needs of it.
        let post = |first, refused: &mut _| unsafe { (self.post_send)(self.raw, first, refused) };
        let (taken, result) = list.post(destination, post);
        (taken, self.posted("ibv_post_send", result))
    }

    #[inline]
    fn posted(&self, call: &'static str, result: i32) -> Result<()> {
        if result == 0 {
            return Ok(());
        }
        let device = self.domain.device().name();
        checked(call, || format!("device={device} qp={}", self.number), result)
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        let library = self.domain.device().library;
        // SAFETY: made once and destroyed once. From here on the card has none of its work requests.
        unsafe { (library.ibv_destroy_qp)(self.raw) };
    }
}
