//! A vhost-user front end of the test's own, with memory that it can take away and rings that it can spoil.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bifurcate_datapath::ring::virtio::{
    DriverRing, Layout, NEXT, Options, PackedDriver, Places, SplitDriver, WRITE, feature,
};
use bifurcate_datapath::vhost_user::message::{Addresses, MemoryRegion};
use bifurcate_datapath::vhost_user::{Link, Message, PROTOCOL_FEATURES, request};
use bifurcate_linux::event::EventFd;
use bifurcate_linux::memory::Mapping;
use bifurcate_linux::stream::Stream;

const AT: u64 = 1 << 20;
const LEN: usize = 1 << 18;
/// Where ring 0 (the device writes), ring 1 (the device reads) and the buffers are.
const RINGS: [usize; 2] = [0, 1 << 14];
const BUFFERS: usize = 1 << 16;
const SIZE: u16 = 64;
/// How long the device may take for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED of the packed layout (VIRTIO 1.2, section 2.8.1).
const LAPS: u16 = 1 << 7 | 1 << 15;

/// A driver with two rings of 64.
pub struct FrontEnd {
    link: Link,
    file: OwnedFd,
    memory: Arc<Mapping>,
    /// What it agrees to, beside what it must.
    features: u64,
    receive: Box<dyn DriverRing>,
    transmit: Box<dyn DriverRing>,
    kick: EventFd,
    given: usize,
}

impl FrontEnd {
    /// Attaches to the device that listens at `path`, by split rings, and gives it 32 buffers to write.
    pub fn connect(path: &Path) -> FrontEnd {
        FrontEnd::agreeing(path, 0)
    }

    /// As [`FrontEnd::connect`], with some features more.
    pub fn agreeing(path: &Path, features: u64) -> FrontEnd {
        FrontEnd::with(path, features, unsealed(LEN), LEN)
    }

    /// As [`FrontEnd::agreeing`], with `len` bytes of memory in `file`.
    pub fn with(path: &Path, features: u64, file: OwnedFd, len: usize) -> FrontEnd {
        assert!(len >= LEN);
        let memory = Arc::new(Mapping::lazy(file.as_fd(), 0, len, "front end").unwrap());
        let packed = features & feature::RING_PACKED != 0;
        let layout = Places::layout(SIZE, packed);
        let options = Options::of(features);
        let ring = |index: usize| -> Box<dyn DriverRing> {
            // SAFETY: both rings and their lengths are within LEN, and the clone keeps the mapping.
            unsafe {
                let base = memory.base().as_ptr().add(RINGS[index]);
                let (driver, device) = (base.add(layout.driver), base.add(layout.device));
                let keep = Arc::clone(&memory) as _;
                let places = Places::new(base, driver, device, SIZE, packed, keep).unwrap();
                if packed {
                    Box::new(PackedDriver::new(places, options))
                } else {
                    Box::new(SplitDriver::new(places, options))
                }
            }
        };
        let [receive, transmit] = [0, 1].map(ring);
        let mut link = Link::new(Stream::connect(path).unwrap());
        let kick = EventFd::new().unwrap();
        let ask = Message::new(request::GET_FEATURES, Vec::new());
        link.ask(&ask, &[], PATIENCE).unwrap();
        link.send(&agreement(features), &[]).unwrap();
        let region = MemoryRegion {
            guest: AT,
            size: LEN as u64,
            user: AT,
            offset: 0,
        };
        link.send(&Message::of_memory(&[region]), &[file.as_fd()])
            .unwrap();
        for index in [0u32, 1] {
            let at = AT + RINGS[index as usize] as u64;
            let addresses = Addresses {
                index,
                desc: at,
                avail: at + layout.driver as u64,
                used: at + layout.device as u64,
                ..Addresses::default()
            };
            for message in [
                Message::of_state(request::SET_VRING_NUM, index, SIZE.into()),
                // Slot 0, and of the packed layout a first lap.
                Message::of_state(
                    request::SET_VRING_BASE,
                    index,
                    if packed { 0x8000_8000 } else { 0 },
                ),
                Message::of_addresses(&addresses),
                Message::of_state(request::SET_VRING_ENABLE, index, 1),
            ] {
                link.send(&message, &[]).unwrap();
            }
            let kicked = Message::of_number(request::SET_VRING_KICK, index.into());
            link.send(&kicked, &[kick.as_fd()]).unwrap();
        }
        let mut this = FrontEnd {
            link,
            file,
            memory,
            features,
            receive,
            transmit,
            kick,
            given: 0,
        };
        for index in 0..32 {
            let addr = this.buffers() + 2048 * index;
            this.give_at(addr, 1600, WRITE);
        }
        this
    }

    fn layout(&self) -> Layout {
        Places::layout(SIZE, self.is_packed())
    }

    fn is_packed(&self) -> bool {
        self.features & feature::RING_PACKED != 0
    }

    /// Says again what was agreed on, and waits until the device has heard it.
    pub fn agree_again(&mut self) {
        self.link.send(&agreement(self.features), &[]).unwrap();
        let ask = Message::new(request::GET_FEATURES, Vec::new());
        self.link.ask(&ask, &[], PATIENCE).unwrap();
    }

    /// The first address of buffers.
    pub fn buffers(&self) -> u64 {
        AT + BUFFERS as u64
    }

    /// The address after the last.
    pub fn end(&self) -> u64 {
        AT + LEN as u64
    }

    /// Makes `count` packets of `len` bytes available.
    pub fn offer(&mut self, count: usize, len: u32) {
        for _ in 0..count {
            self.given += 1;
            let addr = self.buffers() + 2048 * (self.given as u64 % 64);
            self.offer_at(addr, len + 12, 0);
        }
    }

    /// Makes one descriptor available as it is.
    pub fn offer_at(&mut self, addr: u64, len: u32, flags: u16) {
        while let Some(used) = self.transmit.pop_used() {
            self.transmit.free(used.id);
        }
        self.transmit.add(addr, len, flags);
        self.transmit.publish();
        self.kick.raise();
    }

    /// Gives the device one descriptor to write, as it is.
    pub fn give_at(&mut self, addr: u64, len: u32, flags: u16) {
        while let Some(used) = self.receive.pop_used() {
            self.receive.free(used.id);
        }
        self.receive.add(addr, len, flags);
        self.receive.publish();
    }

    /// The bytes that the device says it wrote, of each buffer that it has given back.
    pub fn written(&mut self) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(used) = self.receive.pop_used() {
            self.receive.free(used.id);
            all.push(used.len);
        }
        all
    }

    /// Writes an indirect table into the last page, in the rings' layout, each piece an address, a length and flags, and
    /// gives where it is.
    pub fn table(&mut self, pieces: &[(u64, u32, u16)]) -> u64 {
        let at = LEN - 4096;
        assert!(pieces.len() <= 256);
        for (index, &(addr, len, flags)) in pieces.iter().enumerate() {
            let more = if index + 1 < pieces.len() { NEXT } else { 0 };
            // Of the packed layout the id means nothing there.
            let last = if self.is_packed() {
                [0xffff, flags]
            } else {
                [flags | more, index as u16 + 1]
            };
            self.describe(at + 16 * index, addr, len, last);
        }
        AT + at as u64
    }

    /// Writes a descriptor, of which `last` is flags and next, or id and flags.
    fn describe(&self, at: usize, addr: u64, len: u32, last: [u16; 2]) {
        let addr = [0, 16, 32, 48].map(|shift| (addr >> shift) as u16);
        let words = addr.into_iter().chain([len as u16, (len >> 16) as u16]);
        for (word, value) in words.chain(last).enumerate() {
            self.poke(at + 2 * word, value);
        }
    }

    /// When the 32 buffers are used that it gave at first: gives the device chain `number` of 32, two pieces of `len` bytes
    /// to write. The ring's own half is not to be used from then on.
    pub fn give_chain(&mut self, number: u16, len: u32) {
        let given = 32;
        for (piece, more) in [(2 * number, NEXT), (2 * number + 1, 0)] {
            let addr = self.buffers() + 2048 * u64::from(piece);
            let flags = WRITE | more;
            let (slot, last) = if self.is_packed() {
                let lap = if given + piece < SIZE { 1 << 7 } else { 1 << 15 };
                ((given + piece) % SIZE, [number, flags | lap])
            } else {
                (piece, [flags, piece + 1])
            };
            self.describe(RINGS[0] + 16 * usize::from(slot), addr, len, last);
        }
        if !self.is_packed() {
            let available = RINGS[0] + self.layout().driver;
            let index = given + number;
            self.poke(available + 4 + 2 * usize::from(index % SIZE), 2 * number);
            self.poke(available + 2, index + 1);
        }
    }

    /// Takes the memory away.
    pub fn cut(&mut self) {
        let file: std::fs::File = self.file.try_clone().unwrap().into();
        file.set_len(0).unwrap();
        self.abandon();
    }

    /// The memory's file.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Puts zeros in the place of its own view of the memory: the driver's halves are not to be used from here on.
    pub fn abandon(&mut self) {
        self.memory.zero_in_place().unwrap();
    }

    /// Says that more is available to be read than the ring has slots: by an index, or by a chain without an end.
    pub fn break_ring(&mut self) {
        let layout = self.layout();
        if !self.is_packed() {
            self.poke(RINGS[1] + layout.driver + 2, 0xb0f0);
            return;
        }
        for slot in 0..usize::from(SIZE) {
            self.poke(RINGS[1] + 16 * slot + 14, NEXT | 1 << 7);
        }
    }

    /// Writes anything anywhere in the rings.
    pub fn scribble(&mut self, at: u64, value: u64) {
        let ring = RINGS[(at >> 32) as usize & 1];
        self.poke(ring + (at as usize % self.layout().len) / 2 * 2, value as u16);
    }

    /// Makes scribbled descriptors available, so that they are looked at: moves an index a little, or puts every slot
    /// into one lap or the other.
    pub fn nudge(&mut self, by: u64) {
        let layout = self.layout();
        let ring = RINGS[(by >> 32) as usize & 1];
        if !self.is_packed() {
            let index = self.peek(ring + layout.device + 2).wrapping_add(by as u16 % SIZE);
            self.poke(ring + layout.driver + 2, index);
            return;
        }
        self.lap(usize::from(ring != RINGS[0]), by & 1 != 0);
    }

    /// Packed: puts every slot of a ring into the first lap or the second, available.
    pub fn lap(&mut self, ring: usize, first: bool) {
        let ring = RINGS[ring];
        let available = if first { 1 << 7 } else { 1 << 15 };
        for slot in 0..usize::from(SIZE) {
            let at = ring + 16 * slot + 14;
            self.poke(at, self.peek(at) & !LAPS | available);
        }
    }

    /// Packed: the id and the flags of a slot of the ring that the device reads.
    pub fn slot(&self, slot: usize) -> (u16, u16) {
        let at = RINGS[1] + 16 * slot;
        (self.peek(at + 12), self.peek(at + 14))
    }

    /// Packed: writes them.
    pub fn set_slot(&mut self, slot: usize, id: u16, flags: u16) {
        let at = RINGS[1] + 16 * slot;
        self.poke(at + 12, id);
        self.poke(at + 14, flags);
    }

    fn poke(&self, at: usize, value: u16) {
        assert!(at + 2 <= LEN);
        // SAFETY: within the mapping; the device copes with anything.
        unsafe {
            self.memory
                .base()
                .as_ptr()
                .add(at)
                .cast::<u16>()
                .write_volatile(value);
        }
    }

    fn peek(&self, at: usize) -> u16 {
        assert!(at + 2 <= LEN);
        // SAFETY: within the mapping.
        unsafe { self.memory.base().as_ptr().add(at).cast::<u16>().read_volatile() }
    }
}

/// What it agrees to.
fn agreement(features: u64) -> Message {
    let all = features | feature::VERSION_1 | PROTOCOL_FEATURES;
    Message::of_number(request::SET_FEATURES, all)
}

/// A memory file without the seals that the project's own have: an unlinked file in /dev/shm.
fn unsealed(len: usize) -> OwnedFd {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = format!("/dev/shm/bf-front-end-{}-{number}", std::process::id());
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file.set_len(len as u64).unwrap();
    file.into()
}
