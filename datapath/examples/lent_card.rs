//! Does with a card that a broker lent what its holder should not be able to, and says what came of it.
//!
//! ```text
//! lent_card SOCKET ADDRESS
//! ```
//!
//! Runs as a user without any right. Prints one line with the errno of each try and the I/O address spaces that the card
//! could be attached to; then starts the card with one descriptor that names memory which was not lent, prints
//! `{"ready":true}`, and when a frame has come, how many did.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::lend::{self, Received};
use bifurcate_datapath::device::pmd::{Config, wrong};
use bifurcate_datapath::frame::{Batch, Pages, UmemConfig};
use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::pci::Bus;
use bifurcate_linux::seqpacket::{self, Connection};
use bifurcate_linux::{Error, Result};

/// include/uapi/linux/vfio.h and iommufd.h: `_IO(';', nr)`.
const fn number(nr: u64) -> u64 {
    (b';' as u64) << 8 | nr
}
const GROUP_GET_DEVICE_FD: u64 = number(106);
const BIND_IOMMUFD: u64 = number(118);
const ATTACH: u64 = number(119);
const DETACH: u64 = number(120);
const IOAS_MAP: u64 = number(0x85);

/// Ids that are tried: an iommufd counts its objects from 1.
const SPACES: u32 = 64;
/// Memory that nobody lent: the machine's second mebibyte, were this a physical address.
const ELSEWHERE: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// An ioctl with numbers for an argument; its errno, or 0.
fn try_ioctl(fd: &OwnedFd, request: u64, mut argument: [u32; 16]) -> i32 {
    // SAFETY: every structure of these ioctls is numbers, shorter than the argument, which is live and exclusive.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument.as_mut_ptr()) };
    if done >= 0 {
        return 0;
    }
    std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
}

fn words(first: &[u32]) -> [u32; 16] {
    let mut all = [0; 16];
    all[..first.len()].copy_from_slice(first);
    all
}

/// The number after `"name":` in a message.
fn field(text: &str, name: &str) -> Result<u64> {
    let missing = || Error::new("lent_card", format!("no {name} in {text}"), 71);
    let (_, rest) = text.split_once(&format!("\"{name}\":")).ok_or_else(missing)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| missing())
}

fn ask(broker: &Connection, message: &str) -> Result<(String, Vec<OwnedFd>)> {
    broker.send(message.as_bytes(), &[])?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        wait_one(broker.as_fd(), Interest::Read, Some(PATIENCE))?;
        match broker.receive(&mut buffer)? {
            seqpacket::Received::Nothing => {}
            seqpacket::Received::End => return Err(Error::new("lent_card", "the broker closed", 71)),
            seqpacket::Received::Message {
                length, descriptors, ..
            } => {
                return Ok((
                    String::from_utf8_lossy(&buffer[..length]).into_owned(),
                    descriptors,
                ));
            }
        }
    }
}

/// Attaches the card to each address space that there might be; gives those that took it.
fn attachable(device: &OwnedFd) -> Vec<u32> {
    let spaces: Vec<u32> = (0..SPACES)
        .filter(|space| {
            try_ioctl(device, DETACH, words(&[8, 0]));
            try_ioctl(device, ATTACH, words(&[12, 0, *space])) == 0
        })
        .collect();
    try_ioctl(device, DETACH, words(&[8, 0]));
    if let Some(own) = spaces.first() {
        try_ioctl(device, ATTACH, words(&[12, 0, *own]));
    }
    spaces
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, socket, address] = &args[..] else {
        return Err(Error::new("lent_card", "usage: lent_card SOCKET ADDRESS", 22));
    };
    let broker = Connection::connect(Path::new(socket))?;
    ask(&broker, r#"{"type":"hello","versions":[3],"name":"lent_card"}"#)?;
    let lease = format!(
        r#"{{"device":"{address}","flows":[],"mechanism":"vfio","transmit":"raw","pass":false,"queues":1,"frames":512,"frameSize":2048,"ringSize":64,"zeroCopy":"prefer","busyPoll":false,"pages":"ordinary"}}"#
    );
    let (granted, descriptors) = ask(
        &broker,
        &format!(r#"{{"type":"lease","request":1,"lease":{lease}}}"#),
    )?;
    let Ok([memory, device]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(Error::new("lent_card", granted, 71));
    };
    let iommufd = std::fs::File::open("/dev/iommu").map_or_else(|e| e.raw_os_error().unwrap_or(-1), |_| 0);
    let map = words(&[48, 7, 1, 0, 0, 0, 4096, 0, 0, 0]);
    let resized = resize(&memory);
    println!(
        r#"{{"spaces":{:?},"iommufd":{iommufd},"bind":{},"mapByIommufd":{},"getDevice":{},"shrink":{},"grow":{}}}"#,
        attachable(&device),
        try_ioctl(&device, BIND_IOMMUFD, words(&[16, 0, memory.as_raw_fd() as u32])),
        try_ioctl(&device, IOAS_MAP, map),
        try_ioctl(&device, GROUP_GET_DEVICE_FD, words(&[])),
        resized.0,
        resized.1,
    );
    let received = Received {
        device,
        memory,
        iova: field(&granted, "iova")?,
        rings_at: field(&granted, "ringsAt")?,
        ring_bytes: field(&granted, "ringBytes")?,
    };
    let pool = UmemConfig {
        frames: 512,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Auto,
    };
    let config = Config {
        ring_size: 64,
        ..Config::default()
    };
    wrong::address_next_as(ELSEWHERE);
    let ((mut port, _card), umem) = lend::open(&Bus::system(), address.parse()?, received, &pool, &config)?;
    println!(r#"{{"ready":true}}"#);
    let mut batch = Batch::new(&umem, 32);
    let end = Instant::now() + PATIENCE;
    let mut count = 0;
    while count == 0 && Instant::now() < end {
        count = port.queues[0].rx.poll(&mut batch);
        batch.clear();
    }
    println!(r#"{{"received":{count}}}"#);
    Ok(())
}

/// The errnos of making the memory shorter and longer.
fn resize(memory: &OwnedFd) -> (i32, i32) {
    let to = |len: i64| {
        // SAFETY: takes a descriptor and a number.
        if unsafe { libc::ftruncate(memory.as_raw_fd(), len) } == 0 {
            return 0;
        }
        std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
    };
    (to(4096), to(1 << 30))
}
