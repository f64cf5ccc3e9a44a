//! A vhost-user back end of the test's own, which may use buffers as no device should, and go when it likes.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bifurcate_datapath::ring::virtio::{
    DeviceRing, Head, NUM_BUFFERS_AT, Options, PackedDevice, Places, SplitDevice, WRITE, feature,
};
use bifurcate_datapath::vhost_user::message::MemoryRegion;
use bifurcate_datapath::vhost_user::{Link, request};
use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::memory::Mapping;
use bifurcate_linux::stream::Stream;

/// A device with one pair of rings that merges receive buffers. It goes when it is dropped.
pub struct BackEnd {
    _link: Link,
    memory: Vec<(MemoryRegion, Arc<Mapping>)>,
    receive: Box<dyn DeviceRing>,
    packed: bool,
    /// The parts of both rings, each with its bytes.
    parts: Vec<(*mut u8, usize)>,
}

impl BackEnd {
    /// Attaches to the driver that listens at `path`, and has its memory and rings of `size` slots, with these features
    /// of rings.
    pub fn connect(path: &Path, size: u16, features: u64) -> BackEnd {
        let mut link = Link::new(Stream::connect(path).unwrap());
        let (mut asked, mut memory, mut rings) = (0, Vec::new(), [None; 2]);
        // Twice: at the beginning, and when everything is handed over.
        while asked < 2 {
            let Some(mut message) = link.receive().unwrap() else {
                let there = wait_one(link.as_fd(), Interest::Read, Some(Duration::from_secs(60)));
                assert!(there.unwrap().any(), "the driver does not go on");
                continue;
            };
            match message.request {
                request::GET_FEATURES => {
                    asked += 1;
                    let all = features | feature::VERSION_1 | feature::MRG_RXBUF;
                    message.payload = all.to_le_bytes().to_vec();
                    link.send(&message.as_reply(), &[]).unwrap();
                }
                request::SET_MEM_TABLE => {
                    let map = |(region, fd): (MemoryRegion, _)| {
                        let fd: &std::os::fd::OwnedFd = fd;
                        let map = Mapping::lazy(fd.as_fd(), region.offset, region.size as usize, "back end");
                        (region, Arc::new(map.unwrap()))
                    };
                    memory = message
                        .memory()
                        .unwrap()
                        .into_iter()
                        .zip(&message.fds)
                        .map(map)
                        .collect();
                }
                request::SET_VRING_ADDR => {
                    let at = message.addresses().unwrap();
                    rings[at.index as usize] = Some(at);
                }
                _ => {}
            }
        }
        let packed = features & feature::RING_PACKED != 0;
        let rings = rings.map(|at| {
            let at = at.expect("two rings");
            [at.desc, at.avail, at.used].map(|addr| place(&memory, addr))
        });
        let (desc, driver, device) = Places::lengths(size, packed);
        let parts = rings
            .iter()
            .flat_map(|ring| ring.iter().copied().zip([desc, driver, device]))
            .collect();
        let keep = Arc::clone(&memory.last().expect("two regions").1);
        let [desc, driver, device] = rings[0];
        // SAFETY: the driver's rings of `size` slots are in its last region, which the clone keeps mapped.
        let places = unsafe { Places::new(desc, driver, device, size, packed, keep as _) }.unwrap();
        let options = Options::of(features);
        let receive: Box<dyn DeviceRing> = if packed {
            Box::new(PackedDevice::new(places, options, 0x8000_8000).unwrap())
        } else {
            Box::new(SplitDevice::new(places, options, 0))
        };
        BackEnd {
            _link: link,
            memory,
            receive,
            packed,
            parts,
        }
    }

    /// Uses the next buffer for the first part of a packet, which says that it has so many.
    pub fn put_first(&mut self, buffers: u16, bytes: &[u8]) {
        let mut all = vec![0; 12];
        all[NUM_BUFFERS_AT..].copy_from_slice(&buffers.to_le_bytes());
        all.extend(bytes);
        self.put(&all, all.len() as u32);
    }

    /// Writes into the next buffer, and says that it wrote `used` bytes.
    pub fn put(&mut self, bytes: &[u8], used: u32) {
        self.put_as(bytes, used, None);
    }

    /// As `put`, under another name than the driver gave it.
    pub fn put_as(&mut self, bytes: &[u8], used: u32, id: Option<u16>) {
        let mut heads = [Head::default()];
        assert_eq!(self.receive.look(&mut heads).unwrap(), 1, "a buffer");
        assert!(bytes.len() <= heads[0].len as usize);
        let to = place(&self.memory, heads[0].addr);
        // SAFETY: the driver's buffer has that many bytes, in a region that is mapped.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        heads[0].id = id.unwrap_or(heads[0].id);
        self.receive.complete(&heads[0], used);
        self.receive.publish();
    }

    /// In order, first of all that it uses: a packet of which the first byte of each buffer is given, told of by the last
    /// buffer's entry alone, in the place of the first one's. All but the last are full.
    pub fn put_at_once(&mut self, firsts: &[u8], last: u32) {
        let mut heads = vec![Head::default(); firsts.len()];
        assert_eq!(self.receive.look(&mut heads).unwrap(), firsts.len());
        for (at, (head, &first)) in heads.iter().zip(firsts).enumerate() {
            let mut bytes = vec![first; head.len as usize];
            if at == 0 {
                bytes[..12].fill(0);
                bytes[NUM_BUFFERS_AT..12].copy_from_slice(&(firsts.len() as u16).to_le_bytes());
            }
            let to = place(&self.memory, head.addr);
            // SAFETY: the driver's buffer has that many bytes, in a region that is mapped.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        let id = heads.last().expect("a buffer").id;
        let [(desc, _), _, (used, _)] = self.parts[..3] else {
            unreachable!("three parts a ring")
        };
        // SAFETY: the first entry and the index of the used ring, or the first descriptor, of ring 0: aligned, and mapped.
        unsafe {
            if self.packed {
                desc.add(8).cast::<u32>().write_volatile(last);
                desc.add(12).cast::<u16>().write_volatile(id);
                desc.add(14)
                    .cast::<u16>()
                    .write_volatile(WRITE | 1 << 7 | 1 << 15);
            } else {
                used.add(4).cast::<u32>().write_volatile(id.into());
                used.add(8).cast::<u32>().write_volatile(last);
                used.add(2).cast::<u16>().write_volatile(firsts.len() as u16);
            }
        }
    }

    /// Split: says that it has used so many buffers since the beginning.
    pub fn claim(&mut self, used: u16) {
        let (at, _) = self.parts[2];
        // SAFETY: the second word of ring 0's used ring, which the driver's region has and `memory` keeps mapped.
        unsafe { at.cast::<u16>().add(1).write_volatile(used) };
    }

    /// Writes a word anywhere in the rings.
    pub fn scribble(&mut self, at: u64, value: u64) {
        let (part, len) = self.parts[(at >> 32) as usize % self.parts.len()];
        // SAFETY: within the part, which is aligned to 2; the driver copes with anything.
        unsafe {
            part.cast::<u16>()
                .add(at as u32 as usize % (len / 2))
                .write_volatile(value as u16);
        }
    }

    /// Makes what was scribbled look used: moves a used index a little, or puts every slot into one lap or the other.
    pub fn nudge(&mut self, by: u64) {
        let ring = &self.parts[(by >> 32) as usize % 2 * 3..][..3];
        // SAFETY: words within the parts, as above: the index of the used ring, or the flags of each descriptor.
        unsafe {
            if self.packed {
                let lap = if by & 1 != 0 { 1 << 7 | 1 << 15 } else { 0 };
                for slot in 0..ring[0].1 / 16 {
                    let flags = ring[0].0.cast::<u16>().add(8 * slot + 7);
                    flags.write_volatile(flags.read_volatile() & !(1 << 7 | 1 << 15) | lap);
                }
            } else {
                let index = ring[2].0.cast::<u16>().add(1);
                index.write_volatile(index.read_volatile().wrapping_add(by as u16 % 40));
            }
        }
    }

    /// Whether the driver has given so many buffers.
    pub fn has(&mut self, count: usize) -> bool {
        let mut heads = vec![Head::default(); count];
        self.receive.look(&mut heads).unwrap() == count
    }
}

/// Where an address of the driver's is here.
fn place(memory: &[(MemoryRegion, Arc<Mapping>)], addr: u64) -> *mut u8 {
    let (region, map) = memory
        .iter()
        .find(|(region, _)| (region.guest..region.guest + region.size).contains(&addr))
        .expect("an address of the driver's");
    map.base().as_ptr().wrapping_add((addr - region.guest) as usize)
}
