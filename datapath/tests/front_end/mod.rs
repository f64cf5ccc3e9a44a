//! A vhost-user front end of the test's own, with memory that it can take away and rings that it can spoil.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bifurcate_datapath::ring::virtio::{DriverRing, Options, Places, SplitDriver, WRITE, feature};
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

/// The features that it wants.
fn features() -> Message {
    Message::of_number(request::SET_FEATURES, feature::VERSION_1 | PROTOCOL_FEATURES)
}

/// A driver with two split rings of 64.
pub struct FrontEnd {
    link: Link,
    file: OwnedFd,
    memory: Arc<Mapping>,
    receive: SplitDriver,
    transmit: SplitDriver,
    kick: EventFd,
    given: usize,
}

impl FrontEnd {
    /// Attaches to the device that listens at `path`, and gives it 32 buffers to write.
    pub fn connect(path: &Path) -> FrontEnd {
        FrontEnd::with(path, unsealed(LEN), LEN)
    }

    /// As [`FrontEnd::connect`], with `len` bytes of memory in `file`.
    pub fn with(path: &Path, file: OwnedFd, len: usize) -> FrontEnd {
        assert!(len >= LEN);
        let memory = Arc::new(Mapping::lazy(file.as_fd(), 0, len, "front end").unwrap());
        let ring = |index: usize| {
            let layout = Places::layout(SIZE, false);
            // SAFETY: both rings and their lengths are within LEN, and the clone keeps the mapping.
            unsafe {
                let base = memory.base().as_ptr().add(RINGS[index]);
                let (driver, device) = (base.add(layout.driver), base.add(layout.device));
                Places::new(base, driver, device, SIZE, false, Arc::clone(&memory) as _).unwrap()
            }
        };
        let rings = [0, 1].map(|index| SplitDriver::new(ring(index), Options::default()));
        let mut link = Link::new(Stream::connect(path).unwrap());
        let kick = EventFd::new().unwrap();
        let ask = Message::new(request::GET_FEATURES, Vec::new());
        link.ask(&ask, &[], Duration::from_secs(10)).unwrap();
        link.send(&features(), &[]).unwrap();
        let region = MemoryRegion {
            guest: AT,
            size: LEN as u64,
            user: AT,
            offset: 0,
        };
        link.send(&Message::of_memory(&[region]), &[file.as_fd()])
            .unwrap();
        for index in [0u32, 1] {
            let layout = Places::layout(SIZE, false);
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
                Message::of_addresses(&addresses),
                Message::of_state(request::SET_VRING_ENABLE, index, 1),
            ] {
                link.send(&message, &[]).unwrap();
            }
            let kicked = Message::of_number(request::SET_VRING_KICK, index.into());
            link.send(&kicked, &[kick.as_fd()]).unwrap();
        }
        let [receive, transmit] = rings;
        let mut this = FrontEnd {
            link,
            file,
            memory,
            receive,
            transmit,
            kick,
            given: 0,
        };
        for index in 0..32 {
            let addr = this.buffers() + 2048 * index;
            this.receive.add(addr, 1600, WRITE);
        }
        this.receive.publish();
        this
    }

    /// Says again what was agreed on, and waits until the device has heard it.
    pub fn agree_again(&mut self) {
        self.link.send(&features(), &[]).unwrap();
        let ask = Message::new(request::GET_FEATURES, Vec::new());
        self.link.ask(&ask, &[], Duration::from_secs(10)).unwrap();
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

    /// Says that more is available than the ring has slots.
    pub fn break_index(&mut self) {
        let layout = Places::layout(SIZE, false);
        self.poke(RINGS[1] + layout.driver + 2, 0xb0f0);
    }

    /// Writes anything anywhere in the rings.
    pub fn scribble(&mut self, at: u64, value: u64) {
        let layout = Places::layout(SIZE, false);
        let ring = RINGS[(at >> 32) as usize & 1];
        self.poke(ring + (at as usize % layout.len) / 2 * 2, value as u16);
    }

    /// Moves an available index a little, so that the scribbled descriptors are looked at.
    pub fn nudge(&mut self, by: u64) {
        let layout = Places::layout(SIZE, false);
        let ring = RINGS[(by >> 32) as usize & 1];
        let index = self.peek(ring + layout.device + 2).wrapping_add(by as u16 % SIZE);
        self.poke(ring + layout.driver + 2, index);
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
