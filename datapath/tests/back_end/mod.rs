//! A vhost-user back end of the test's own, which may use buffers as no device should, and go when it likes.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bifurcate_datapath::ring::virtio::{
    DeviceRing, Head, NUM_BUFFERS_AT, Options, Places, SplitDevice, feature,
};
use bifurcate_datapath::vhost_user::message::MemoryRegion;
use bifurcate_datapath::vhost_user::{Link, request};
use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::memory::Mapping;
use bifurcate_linux::stream::Stream;

/// A device with one pair of split rings that merges receive buffers. It goes when it is dropped.
pub struct BackEnd {
    _link: Link,
    memory: Vec<(MemoryRegion, Arc<Mapping>)>,
    receive: SplitDevice,
    /// The used ring of ring 0.
    used: *mut u8,
}

impl BackEnd {
    /// Attaches to the driver that listens at `path`, and has its memory and rings.
    pub fn connect(path: &Path, size: u16) -> BackEnd {
        let mut link = Link::new(Stream::connect(path).unwrap());
        let (mut asked, mut memory, mut ring) = (0, Vec::new(), None);
        // Twice: at the beginning, and when everything is handed over.
        while asked < 2 {
            let Some(mut message) = link.receive().unwrap() else {
                let there = wait_one(link.as_fd(), Interest::Read, Some(Duration::from_secs(10)));
                assert!(there.unwrap().any(), "the driver does not go on");
                continue;
            };
            match message.request {
                request::GET_FEATURES => {
                    asked += 1;
                    let features = feature::VERSION_1 | feature::MRG_RXBUF;
                    message.payload = features.to_le_bytes().to_vec();
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
                    if at.index == 0 {
                        ring = Some(at);
                    }
                }
                _ => {}
            }
        }
        let at = ring.expect("ring 0");
        let [desc, driver, device] = [at.desc, at.avail, at.used].map(|addr| place(&memory, addr));
        let keep = Arc::clone(&memory.last().expect("two regions").1);
        // SAFETY: the driver's rings of `size` slots are in its last region, which the clone keeps mapped.
        let places = unsafe { Places::new(desc, driver, device, size, false, keep as _) };
        BackEnd {
            _link: link,
            memory,
            receive: SplitDevice::new(places.unwrap(), Options::default(), 0),
            used: device,
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
        let mut heads = [Head::default()];
        assert_eq!(self.receive.look(&mut heads).unwrap(), 1, "a buffer");
        assert!(bytes.len() <= heads[0].len as usize);
        let to = place(&self.memory, heads[0].addr);
        // SAFETY: the driver's buffer has that many bytes, in a region that is mapped.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.receive.complete(&heads[0], used);
        self.receive.publish();
    }

    /// Says that it has used so many buffers since the beginning.
    pub fn claim(&mut self, used: u16) {
        // SAFETY: the second word of the used ring, which the driver's region has and `memory` keeps mapped.
        unsafe { self.used.cast::<u16>().add(1).write_volatile(used) };
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
