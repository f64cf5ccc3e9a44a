//! Receiving: blocks that the kernel filled, frame by frame copied into the pool.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bifurcate_linux::interface::{Link, link, mtu_in};
use bifurcate_linux::memory::Mapping;
use bifurcate_linux::packet::{
    BLOCK_STATUS_AT, BlockHeader, FrameHeader, PACKET_OUTGOING, PACKET_TYPE_AT, PacketSocket, ReceiveRing,
    STATUS_CHECKSUM_NOT_READY, STATUS_KERNEL, STATUS_USER, STATUS_VLAN_TPID_VALID, STATUS_VLAN_VALID,
};

use crate::device::{Counters, LeftToCard, Mtu, RxQueue, State};
use crate::frame::{Batch, Frame, Metadata, checksum};

/// How often the kernel is asked for its counters and whether the device is there.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// The clock is looked at once in this many polls.
const POLLS_PER_CLOCK: u32 = 64;

/// Tag protocol of an ordinary VLAN tag (IEEE 802.1Q).
const VLAN_8021Q: u16 = 0x8100;

/// Bytes of the two MAC addresses, behind which a VLAN tag stands.
const ADDRESSES: usize = 12;

/// The receiving half of an AF_PACKET queue.
pub(super) struct Rx {
    socket: PacketSocket,
    ring: Mapping,
    layout: ReceiveRing,
    ifindex: u32,
    mtu: Mtu,
    metadata: bool,
    /// The block that is read now, or will be handed over next.
    block: u32,
    /// Frames of it that were not read; `None` while the kernel has it.
    open: Option<Walk>,
    state: State,
    counters: Arc<Counters>,
    polls: u32,
    last_look: Instant,
}

/// Where reading a block stands.
#[derive(Clone, Copy)]
struct Walk {
    /// Frames left.
    frames: u32,
    /// Bytes from the block's start to the next frame's header.
    at: u32,
}

impl Rx {
    pub(super) fn new(
        socket: PacketSocket,
        ring: Mapping,
        layout: ReceiveRing,
        ifindex: u32,
        mtu: &Mtu,
        metadata: bool,
    ) -> Rx {
        assert!(ring.len() >= layout.len());
        Rx {
            socket,
            ring,
            layout,
            ifindex,
            mtu: mtu.clone(),
            metadata,
            block: 0,
            open: None,
            state: State::Up,
            counters: Arc::default(),
            polls: 0,
            last_look: Instant::now(),
        }
    }

    fn base(&self) -> *mut u8 {
        let offset = self.block as usize * self.layout.block_size as usize;
        // SAFETY: `block` is below the number of blocks (`close` wraps it), and the constructor saw that the
        // mapping holds them all.
        unsafe { self.ring.base().as_ptr().add(offset) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: the status word lies within the block, which is page-aligned, and is mapped while `self`
        // lives; both the kernel and this side treat it as atomic.
        unsafe { AtomicU32::from_ptr(self.base().add(BLOCK_STATUS_AT).cast()) }
    }

    /// A copy of a `T` at `at` in the open block, or `None` when it would leave the block or is not aligned.
    fn read<T: Copy>(&self, at: u32) -> Option<T> {
        let end = (at as usize).checked_add(size_of::<T>())?;
        if end > self.layout.block_size as usize || !(at as usize).is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: inside of the block and aligned, as just checked; T is a struct of integers here, so any
        // bytes are valid. The kernel writes nothing to a block that user space has.
        Some(unsafe { self.base().add(at as usize).cast::<T>().read() })
    }

    /// Opens the next block if the kernel has handed it over.
    fn next_block(&mut self) -> bool {
        if self.status().load(Ordering::Acquire) & STATUS_USER == 0 {
            return false;
        }
        let header: BlockHeader = self.read(0).expect("a block is longer than its header");
        self.open = Some(Walk {
            frames: header.frames,
            at: header.first_frame,
        });
        true
    }

    /// Gives the block back to the kernel.
    fn close(&mut self) {
        self.open = None;
        self.status().store(STATUS_KERNEL, Ordering::Release);
        self.block = (self.block + 1) % self.layout.blocks;
    }

    /// Copies the next frame of the open block into the pool and moves on. True when it went into the batch.
    fn next_frame(&mut self, walk: Walk, batch: &mut Batch) -> bool {
        let header: Option<FrameHeader> = self.read(walk.at);
        let inside = |header: &FrameHeader| {
            u64::from(walk.at) + u64::from(header.mac_at) + u64::from(header.captured)
                <= u64::from(self.layout.block_size)
        };
        let Some(header) = header.filter(inside) else {
            // Nothing that follows can be trusted either.
            self.counters.invalid_descriptor.add(1);
            self.close();
            return false;
        };
        let took = self.copy(walk.at, &header, batch);
        if walk.frames <= 1 || header.next == 0 {
            self.close();
        } else {
            self.open = Some(Walk {
                frames: walk.frames - 1,
                at: walk.at.saturating_add(header.next),
            });
        }
        took
    }

    /// Whether this host sent the frame at `at` itself. Kernels before 6.2 give a fanout group such frames whatever its
    /// members asked for.
    fn is_outgoing(&self, at: u32) -> bool {
        self.read(at.saturating_add(PACKET_TYPE_AT)) == Some(PACKET_OUTGOING)
    }

    fn copy(&self, at: u32, header: &FrameHeader, batch: &mut Batch) -> bool {
        if self.is_outgoing(at) {
            return false;
        }
        if header.captured < header.len {
            self.counters.too_long.add(1);
            return false;
        }
        let start = at as usize + usize::from(header.mac_at);
        // SAFETY: the caller saw that the range lies in the block. The block belongs to user space until
        // `close`, which needs `&mut self`, so nobody writes it while this slice lives.
        let bytes = unsafe { std::slice::from_raw_parts(self.base().add(start), header.captured as usize) };
        let tagged = header.status & STATUS_VLAN_VALID != 0 && bytes.len() >= ADDRESSES;
        let len = bytes.len() + if tagged { 4 } else { 0 };
        let cache = batch.cache_mut();
        let Some(mut frame) = cache.take_for(len) else {
            let longest = if cache.umem().jumbo_frames() > 0 {
                crate::frame::JUMBO_SIZE
            } else {
                cache.umem().frame_size()
            };
            let fits = len <= (longest - crate::frame::HEADROOM) as usize;
            let counter = if fits {
                &self.counters.no_frames
            } else {
                &self.counters.too_long
            };
            counter.add(1);
            return false;
        };
        if tagged {
            let protocol = if header.status & STATUS_VLAN_TPID_VALID != 0 {
                header.vlan_tpid
            } else {
                VLAN_8021Q
            };
            let mut tag = [0u8; 4];
            tag[..2].copy_from_slice(&protocol.to_be_bytes());
            tag[2..].copy_from_slice(&(header.vlan_tci as u16).to_be_bytes());
            cache.append(&mut frame, &bytes[..ADDRESSES]);
            cache.append(&mut frame, &tag);
            cache.append(&mut frame, &bytes[ADDRESSES..]);
        } else {
            cache.append(&mut frame, bytes);
        }
        if header.status & STATUS_CHECKSUM_NOT_READY != 0 {
            checksum::complete_if_pending(cache.bytes_mut(&mut frame));
        }
        self.push(frame, header, batch)
    }

    fn push(&self, frame: Frame, header: &FrameHeader, batch: &mut Batch) -> bool {
        self.counters.received_bytes.add(frame.len().into());
        let pushed = if self.metadata {
            let nanoseconds = u64::from(header.seconds) * 1_000_000_000 + u64::from(header.nanoseconds);
            let metadata = Metadata {
                hash: self.layout.hash.then_some(header.hash),
                timestamp: Some(nanoseconds),
                vlan: None,
            };
            batch.push_with(frame, metadata)
        } else {
            batch.push(frame)
        };
        match pushed {
            Ok(()) => true,
            Err(frame) => {
                batch.cache_mut().give(frame);
                false
            }
        }
    }

    /// Adds what the kernel counted since the last time, and learns whether the device is there.
    #[cold]
    fn housekeeping(&mut self) {
        let now = Instant::now();
        // A socket whose device went down has an error waiting, which ends every sleep until it is taken.
        let error = self.socket.pending_error().unwrap_or(0);
        if error == 0 && now.duration_since(self.last_look) < HOUSEKEEPING {
            return;
        }
        self.last_look = now;
        self.count_losses();
        if let Ok(now) = mtu_in(self.socket.as_fd(), self.ifindex) {
            self.mtu.set(now);
        }
        if self.state != State::Gone {
            self.state = match link(self.socket.as_fd(), self.ifindex) {
                Ok(Link::Gone) => State::Gone,
                Ok(Link::Down) => State::Down,
                Ok(Link::Up) | Err(_) => State::Up,
            };
        }
    }

    fn count_losses(&self) {
        if let Ok(statistics) = self.socket.take_statistics() {
            self.counters.ring_full.add(statistics.drops);
        }
    }
}

impl RxQueue for Rx {
    fn poll(&mut self, batch: &mut Batch) -> usize {
        let mut frames = 0;
        while batch.room() > 0 {
            match self.open {
                Some(walk) if walk.frames > 0 => frames += usize::from(self.next_frame(walk, batch)),
                Some(_) => self.close(),
                None => {
                    if !self.next_block() {
                        break;
                    }
                }
            }
        }
        // A block that is read to its end is worth more to the kernel than to us.
        if self.open.is_some_and(|walk| walk.frames == 0) {
            self.close();
        }
        self.counters.received.add(frames as u64);
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(POLLS_PER_CLOCK) {
            self.housekeeping();
        }
        frames
    }

    fn ready_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn state(&self) -> State {
        self.state
    }

    /// The kernel says which checksums are not made, and they are made on receipt. What it joined, or a sender left
    /// unsegmented, stays long.
    fn left_to_card(&self) -> LeftToCard {
        LeftToCard {
            segments: true,
            ..LeftToCard::NOTHING
        }
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        self.count_losses();
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use bifurcate_linux::interface;
    use bifurcate_linux::packet::{Instruction, Version};

    use super::*;
    use crate::frame::{Pages, Umem, UmemConfig};

    /// A frame is wanted when the two bytes at 36 (UDP destination port behind an IPv4 header without options) are
    /// `port`: ldh [36]; jeq port; ret 256 KiB; ret 0 (linux/filter.h).
    fn to_port(port: u16) -> [Instruction; 4] {
        [
            (0x28, 0, 0, 36),
            (0x15, 0, 1, port.into()),
            (0x06, 0, 0, 1 << 18),
            (0x06, 0, 0, 0),
        ]
        .map(|(code, jt, jf, k)| Instruction { code, jt, jf, k })
    }

    #[test]
    fn what_this_host_sends_is_not_received_though_the_kernel_shows_it() {
        let Ok(socket) = PacketSocket::open() else {
            println!(
                "SKIPPED what_this_host_sends_is_not_received_though_the_kernel_shows_it: needs CAP_NET_RAW"
            );
            return;
        };
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        // As a fanout group before kernel 6.2 does: outgoing frames are not left out. On the loopback interface each
        // datagram is then seen twice, going out and coming in.
        socket.attach_classic(&to_port(address.port())).unwrap();
        socket.version(Version::V3).unwrap();
        let layout = ReceiveRing {
            block_size: 64 << 10,
            blocks: 4,
            retire_ms: 1,
            hash: false,
        };
        let ring = socket.receive_ring(&layout).unwrap();
        let lo = interface::index("lo").unwrap();
        socket.bind(lo, true).unwrap();
        let mut rx = Rx::new(socket, ring, layout, lo, &Mtu::new(65_536), false);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..10u8 {
            sender.send_to(&[number; 20], address).unwrap();
        }
        let umem = Umem::map(&UmemConfig {
            frames: 64,
            pages: Pages::Ordinary,
            ..UmemConfig::default()
        })
        .unwrap();
        let mut batch = Batch::new(&umem, 64);
        // Not polled meanwhile: that takes the statistics too, now and then.
        let (mut packets, end) = (0, Instant::now() + Duration::from_secs(60));
        while packets < 20 && Instant::now() < end {
            packets += rx.socket.take_statistics().unwrap().packets;
            std::thread::yield_now();
        }
        assert_eq!(packets, 20, "the kernel shows each datagram twice");
        // The last block is handed over after a millisecond.
        while batch.len() < 10 && Instant::now() < end {
            rx.poll(&mut batch);
        }
        std::thread::sleep(Duration::from_millis(20));
        rx.poll(&mut batch);
        let numbers: Vec<u8> = (0..batch.len()).map(|at| batch.bytes(at)[42]).collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        assert_eq!(rx.counters.totals().received, 10);
    }

    const BLOCK: usize = 4096;
    /// What stands behind the ring, where nobody may read.
    const BEYOND: [u8; 16] = *b"beyond the ring!";

    /// A receiving half over a block that the test writes, as a hostile kernel would.
    fn over_a_block() -> Option<(Rx, Batch)> {
        let layout = ReceiveRing {
            block_size: BLOCK as u32,
            blocks: 1,
            retire_ms: 1,
            hash: false,
        };
        let memory = Mapping::anonymous(2 * BLOCK).unwrap();
        let socket = PacketSocket::open().ok()?;
        let rx = Rx::new(socket, memory, layout, 1, &Mtu::new(1500), true);
        for at in (BLOCK..2 * BLOCK).step_by(BEYOND.len()) {
            write(&rx, at, &BEYOND);
        }
        let umem = Umem::map(&UmemConfig {
            frames: 64,
            pages: Pages::Ordinary,
            ..UmemConfig::default()
        })
        .unwrap();
        Some((rx, Batch::new(&umem, 32)))
    }

    fn write(rx: &Rx, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= rx.ring.len());
        // SAFETY: within the mapping, as just checked, which the test alone has.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), rx.ring.base().as_ptr().add(at), bytes.len());
        }
    }

    /// A frame's header: where it stands (in words), bytes to the next, captured, missing, to the frame.
    fn header() -> impl proptest::strategy::Strategy<Value = (usize, u32, u32, u32, u16)> {
        (0..1024usize, 0..5000u32, 0..1700u32, 0..2u32, 0..2000u16)
    }

    proptest::proptest! {
        #[test]
        fn a_block_of_any_bytes_is_walked_within_its_bounds(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 256),
            frames: u32,
            headers in proptest::collection::vec(header(), 1..16),
        ) {
            let Some((mut rx, mut batch)) = over_a_block() else {
                static ONCE: std::sync::Once = std::sync::Once::new();
                ONCE.call_once(|| {
                    println!("SKIPPED a_block_of_any_bytes_is_walked_within_its_bounds: needs CAP_NET_RAW");
                });
                return Ok(());
            };
            for at in (0..BLOCK).step_by(256) {
                write(&rx, at, &bytes);
            }
            for &(at, next, captured, missing, mac_at) in &headers {
                let fields = [(0, next), (12, captured), (16, captured + missing), (24, u32::from(mac_at))];
                for (field, value) in fields {
                    if 4 * at + field + 4 <= BLOCK {
                        write(&rx, 4 * at + field, &value.to_ne_bytes());
                    }
                }
            }
            write(&rx, 12, &frames.to_ne_bytes());
            write(&rx, 16, &(4 * headers[0].0 as u32).to_ne_bytes());
            write(&rx, BLOCK_STATUS_AT, &STATUS_USER.to_ne_bytes());
            // Each poll ends, and after a while the block is the kernel's again.
            for _ in 0..1024 {
                rx.poll(&mut batch);
                for at in 0..batch.len() {
                    proptest::prop_assert!(!batch.bytes(at).windows(16).any(|seen| seen == BEYOND));
                }
                batch.clear();
            }
            proptest::prop_assert!(rx.open.is_none());
            let umem = Arc::clone(batch.cache().umem());
            drop(batch);
            proptest::prop_assert_eq!(umem.in_depot().0, 64);
        }
    }
}
