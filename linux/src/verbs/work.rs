//! Work requests, gathered into lists that are posted at once, and completions, taken many at a time.

use std::ptr;

use super::layout::{IbvAh, IbvRecvWr, IbvSendWr, IbvSge, IbvWc, SEND_SIGNALED, WC_GRH, WR_SEND, WcStatus};
use super::objects::AddressHandle;

/// Most work requests of a list, and completions taken at a time.
pub const WORK_MAX: usize = 64;

/// A work request of rdma-core's, as far as a list of them asks.
pub trait Request: Sized {
    /// One that asks for nothing yet, with one piece of memory.
    const NONE: Self;

    /// Its number, which its completion will have.
    fn id(&self) -> u64;

    /// Sets the number.
    fn set_id(&mut self, id: u64);

    /// Sets its piece of memory, and the request that follows it.
    fn link(&mut self, piece: *mut IbvSge, next: *mut Self);
}

impl Request for IbvRecvWr {
    const NONE: Self = IbvRecvWr {
        wr_id: 0,
        next: ptr::null_mut(),
        sg_list: ptr::null_mut(),
        num_sge: 1,
    };

    fn id(&self) -> u64 {
        self.wr_id
    }

    #[inline]
    fn set_id(&mut self, id: u64) {
        self.wr_id = id;
    }

    #[inline]
    fn link(&mut self, piece: *mut IbvSge, next: *mut Self) {
        (self.sg_list, self.next) = (piece, next);
    }
}

impl Request for IbvSendWr {
    const NONE: Self = IbvSendWr {
        wr_id: 0,
        next: ptr::null_mut(),
        sg_list: ptr::null_mut(),
        num_sge: 1,
        opcode: WR_SEND,
        send_flags: 0,
        imm_data: 0,
        ah: ptr::null_mut(),
        remote_qpn: 0,
        remote_qkey: 0,
        rest: [0; 2],
        remote_srqn: 0,
        mw: [0; 6],
    };

    fn id(&self) -> u64 {
        self.wr_id
    }

    #[inline]
    fn set_id(&mut self, id: u64) {
        self.wr_id = id;
    }

    #[inline]
    fn link(&mut self, piece: *mut IbvSge, next: *mut Self) {
        (self.sg_list, self.next) = (piece, next);
    }
}

/// Requests of one kind, each of one piece of memory.
#[derive(Debug)]
pub struct Requests<R> {
    requests: Box<[R; WORK_MAX]>,
    pieces: Box<[IbvSge; WORK_MAX]>,
    count: usize,
}

/// Requests to receive.
pub type Receives = Requests<IbvRecvWr>;

/// Requests to send.
pub type Sends = Requests<IbvSendWr>;

// SAFETY: the pointers within reach this value's own boxes, or an address handle that is only looked at while the
// destination is borrowed (`Sends::post`).
unsafe impl<R> Send for Requests<R> {}

impl<R: Request> Default for Requests<R> {
    fn default() -> Self {
        const NO_PIECE: IbvSge = IbvSge {
            addr: 0,
            length: 0,
            lkey: 0,
        };
        Requests {
            requests: Box::new([const { R::NONE }; WORK_MAX]),
            pieces: Box::new([NO_PIECE; WORK_MAX]),
            count: 0,
        }
    }
}

impl<R: Request> Requests<R> {
    /// Adds a request: `len` bytes at `address`, of the memory region with that key; its completion has the number `id`.
    /// The card checks address and length against the region. False when the list is full.
    #[inline]
    pub fn push(&mut self, id: u64, address: u64, len: u32, lkey: u32) -> bool {
        let at = self.count;
        if at == WORK_MAX {
            return false;
        }
        self.requests[at].set_id(id);
        self.pieces[at] = IbvSge {
            addr: address,
            length: len,
            lkey,
        };
        self.count += 1;
        true
    }

    /// Requests in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is no room for another one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == WORK_MAX
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Posts the requests by `call`, which gets the first of them, chained and ended with null, and where to name the one
    /// that it refused; then the list is empty. Gives how many the card took, and what `call` gave: 0 without requests.
    #[inline]
    fn post_by(&mut self, call: impl FnOnce(*mut R, &mut *mut R) -> i32) -> (usize, i32) {
        if self.is_empty() {
            return (0, 0);
        }
        let (requests, pieces) = (self.requests.as_mut_ptr(), self.pieces.as_mut_ptr());
        for at in 0..self.count {
            let next = if at + 1 < self.count {
                requests.wrapping_add(at + 1)
            } else {
                ptr::null_mut()
            };
            self.requests[at].link(pieces.wrapping_add(at), next);
        }
        let mut refused = ptr::null_mut();
        let result = call(requests, &mut refused);
        let taken = if result == 0 {
            self.count
        } else {
            self.before(refused)
        };
        self.clear();
        (taken, result)
    }

    /// How many requests of those that were handed out stand before the one that was refused. Where none is named all may
    /// be with the card: a provider that queues them and then fails to tell the card says no more.
    fn before(&self, refused: *mut R) -> usize {
        let offset = (refused as usize).wrapping_sub(self.requests.as_ptr() as usize);
        (offset / size_of::<R>()).min(self.count)
    }
}

impl Receives {
    /// Posts the requests by `call`; then the list is empty. Gives how many the card took, and what `call` gave.
    #[inline]
    pub(super) fn post(
        &mut self,
        call: impl FnOnce(*mut IbvRecvWr, &mut *mut IbvRecvWr) -> i32,
    ) -> (usize, i32) {
        self.post_by(call)
    }
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The way there.
    pub way: &'a AddressHandle,
    /// The number of the queue pair there.
    pub queue_pair: u32,
    /// The key that it checks.
    pub qkey: u32,
}

impl Sends {
    /// Posts the requests, all to `destination`, the last with a completion, as [`Receives::post`] does.
    #[inline]
    pub(super) fn post(
        &mut self,
        destination: Option<&Destination<'_>>,
        call: impl FnOnce(*mut IbvSendWr, &mut *mut IbvSendWr) -> i32,
    ) -> (usize, i32) {
        let (ah, queue_pair, qkey): (*mut IbvAh, u32, u32) =
            destination.map_or((ptr::null_mut(), 0, 0), |to| (to.way.raw, to.queue_pair, to.qkey));
        let last = self.count.wrapping_sub(1);
        for (at, request) in self.requests[..self.count].iter_mut().enumerate() {
            request.send_flags = if at == last { SEND_SIGNALED } else { 0 };
            request.ah = ah;
            request.remote_qpn = queue_pair;
            request.remote_qkey = qkey;
        }
        self.post_by(call)
    }
}

/// What a work request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request's number. Whoever writes the completion may write anything here.
    pub id: u64,
    /// Whether it was done.
    pub status: WcStatus,
    /// Bytes received.
    pub len: u32,
    /// The queue pair that sent it, of a datagram.
    pub from: u32,
    /// The first 40 bytes are a global route header.
    pub has_route_header: bool,
}

/// Completions, taken from a queue and read one after another.
#[derive(Debug)]
pub struct Completions {
    taken: Box<[IbvWc; WORK_MAX]>,
    next: usize,
    count: usize,
}

impl Default for Completions {
    fn default() -> Self {
        const NONE: IbvWc = IbvWc {
            wr_id: 0,
            status: 0,
            opcode: 0,
            vendor_err: 0,
            byte_len: 0,
            imm_data: 0,
            qp_num: 0,
            src_qp: 0,
            wc_flags: 0,
            pkey_index: 0,
            slid: 0,
            sl: 0,
            dlid_path_bits: 0,
        };
        Completions {
            taken: Box::new([NONE; WORK_MAX]),
            next: 0,
            count: 0,
        }
    }
}

impl Completions {
    /// Whether all have been read.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.next == self.count
    }

    /// Forgets those that have not been read.
    pub fn clear(&mut self) {
        (self.next, self.count) = (0, 0);
    }

    /// The room for a poll: what was not read is forgotten.
    #[inline]
    pub(super) fn space(&mut self) -> (*mut IbvWc, i32) {
        self.clear();
        (self.taken.as_mut_ptr(), WORK_MAX as i32)
    }

    /// A poll has written `count` of them.
    #[inline]
    pub(super) fn filled(&mut self, count: usize) {
        self.count = count.min(WORK_MAX);
    }
}

impl Iterator for Completions {
    type Item = Completion;

    /// The next one.
    #[inline]
    fn next(&mut self) -> Option<Completion> {
        if self.is_empty() {
            return None;
        }
        let told = &self.taken[self.next];
        self.next += 1;
        Some(Completion {
            id: told.wr_id,
            status: WcStatus::of(told.status),
            len: told.byte_len,
            from: told.src_qp,
            has_route_header: told.wc_flags & WC_GRH != 0,
        })
    }
}

/// What a model of a card does in its place.
#[cfg(any(test, feature = "fake"))]
mod model {
    use super::{Completion, Completions, Request, Requests, WORK_MAX, WcStatus};

    impl Completions {
        /// Adds one, as a poll would; false when there is no room. The first one forgets those that have been read.
        pub fn push(&mut self, completion: Completion) -> bool {
            if self.is_empty() {
                self.clear();
            }
            if self.count == WORK_MAX {
                return false;
            }
            let told = &mut self.taken[self.count];
            told.wr_id = completion.id;
            told.status = match completion.status {
                WcStatus::Success => 0,
                WcStatus::LengthError => 1,
                WcStatus::Flushed => 5,
                WcStatus::Other(number) => number,
            };
            told.byte_len = completion.len;
            told.src_qp = completion.from;
            told.wc_flags = u32::from(completion.has_route_header);
            self.count += 1;
            true
        }
    }

    impl<R: Request> Requests<R> {
        /// Number, address and length of each request.
        pub fn requests(&self) -> impl Iterator<Item = (u64, u64, u32)> {
            let requests = self.requests.iter().zip(self.pieces.iter()).take(self.count);
            requests.map(|(request, piece)| (request.id(), piece.addr, piece.length))
        }
    }
}
