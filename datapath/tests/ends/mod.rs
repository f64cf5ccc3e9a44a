//! The ports that tests open at a socket, and what they send to each other.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::Arc;

use bifurcate_datapath::device::{Port, vhost, virtio};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_datapath::vhost_user::Inner;
use bifurcate_linux::stream::Stream;

use crate::place::{Place, until};

/// 1,024 frames.
pub fn pool() -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames: 1024,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Ordinary,
    })
    .unwrap()
}

/// A device that listens.
pub fn device(place: &Place) -> vhost::Opened {
    vhost::open(&vhost::Config::new(&place.0), &pool()).unwrap()
}

/// Sends frames of 60 bytes by the first pair; gives how many the port took.
pub fn send(port: &mut Port, batch: &mut Batch, count: usize) -> usize {
    for _ in 0..count {
        let frame = batch.cache_mut().copy_in(&[7; 60]).unwrap();
        batch.push_send(frame, 0).unwrap();
    }
    let sent = port.queues[0].tx.send(batch);
    batch.clear();
    sent
}

/// How many frames have come by the first pair.
pub fn receive(port: &mut Port, batch: &mut Batch) -> usize {
    let got = port.queues[0].rx.poll(batch);
    batch.clear();
    got
}

/// Whoever was there before: an honest driver attaches to the port, and packets travel.
pub fn still_works(place: &Place, device: &mut vhost::Opened) {
    let mut driver = virtio::open(&virtio::Config::new(&place.0), &pool()).unwrap();
    let mut near = Batch::new(&driver.port.umem, 32);
    let mut far = Batch::new(&device.port.umem, 32);
    assert_eq!(send(&mut driver.port, &mut near, 1), 1);
    until("a packet", || receive(&mut device.port, &mut far) == 1);
}

/// Why the connection ended, when it has.
pub fn error_of(status: &Inner) -> String {
    until("the end of the connection", || {
        let status = status.status();
        status.connections > 0 && !status.connected
    });
    status.status().error.unwrap_or_default()
}

/// A pair of ports that has nothing to do with the trouble.
pub struct Bystander {
    device: vhost::Opened,
    driver: virtio::Opened,
}

impl Bystander {
    pub fn new() -> Bystander {
        let (near, far) = Stream::pair().unwrap();
        let device = vhost::attach(far, 1, &pool()).unwrap();
        let driver = virtio::attach(near, &virtio::Config::new(""), &pool()).unwrap();
        Bystander { device, driver }
    }

    /// Its packets travel.
    pub fn moves(&mut self) {
        let mut near = Batch::new(&self.driver.port.umem, 32);
        let mut far = Batch::new(&self.device.port.umem, 32);
        assert_eq!(send(&mut self.driver.port, &mut near, 5), 5);
        let mut got = 0;
        until("the bystander's packets", || {
            got += receive(&mut self.device.port, &mut far);
            got == 5
        });
    }
}
