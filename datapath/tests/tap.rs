//! What lands in the file is what went over the queue; a file that fails costs the loop nothing.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bifurcate_datapath::device::TxQueue;
use bifurcate_datapath::device::loopback::pair;
use bifurcate_datapath::device::tap::{BUFFER, Tap};
use bifurcate_datapath::frame::{Batch, Pages, UmemConfig};

const UMEM: UmemConfig = UmemConfig {
    frames: 512,
    frame_size: 2048,
    jumbo_frames: 0,
    pages: Pages::Ordinary,
};

#[derive(Clone, Default)]
struct File(Arc<Mutex<Vec<u8>>>);

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A disk that is full after so many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.0 {
            return Err(std::io::Error::from_raw_os_error(28));
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The blocks of a file: type and body, both lengths checked.
fn blocks(file: &[u8]) -> Vec<(usize, &[u8])> {
    let (mut at, mut blocks) = (0, Vec::new());
    while at < file.len() {
        let length = word(file, at + 4);
        assert_eq!(length % 4, 0);
        assert_eq!(word(file, at + length - 4), length);
        blocks.push((word(file, at), &file[at + 8..at + length - 4]));
        at += length;
    }
    blocks
}

fn send(tx: &mut dyn TxQueue, batch: &mut Batch, packets: &[Vec<u8>]) {
    for packet in packets {
        let frame = batch.cache_mut().copy_in(packet).unwrap();
        batch.push_send(frame, 0).unwrap();
    }
    batch.sending_to(0);
    tx.send(batch);
    batch.clear();
}

#[test]
fn both_directions_are_in_the_file_whole_or_cut() {
    let file = File::default();
    let tap = Tap::new(Box::new(file.clone()), "eth7").unwrap();
    let (mut a, mut b) = pair(1, &UMEM, 100).unwrap();
    let mut tapped = tap.wrap(a.queues.remove(0), 70);
    let mut peer = b.queues.remove(0);
    let (mut near, mut far) = (Batch::new(&a.umem, 32), Batch::new(&b.umem, 32));
    let out = [vec![1u8; 60], vec![2u8; 61]];
    let back = [vec![3u8; 100]];
    send(&mut *tapped.tx, &mut near, &out);
    send(&mut *peer.tx, &mut far, &back);
    assert_eq!(tapped.rx.poll(&mut near), 1);
    assert_eq!(near.bytes(0), back[0]);
    assert_eq!(peer.rx.poll(&mut far), 2);
    let captured = tap.finish().unwrap();
    assert_eq!((captured.written, captured.missed), (3, 0));

    let file = file.0.lock().unwrap().clone();
    let blocks = blocks(&file);
    let kinds: Vec<usize> = blocks.iter().map(|b| b.0).collect();
    assert_eq!(kinds[..2], [0x0a0d_0d0a, 1]);
    assert_eq!(kinds.last(), Some(&5));
    assert!(blocks[1].1.windows(4).any(|w| w == b"eth7"));
    let mut packets: Vec<(Vec<u8>, usize, usize)> = blocks
        .iter()
        .filter(|b| b.0 == 6)
        .map(|(_, body)| {
            let captured = word(body, 12);
            let flags = word(body, 20 + captured.next_multiple_of(4) + 4);
            (body[20..20 + captured].to_vec(), word(body, 16), flags)
        })
        .collect();
    packets.sort();
    let expected = [
        (vec![1u8; 60], 60, 2),
        (vec![2u8; 61], 61, 2),
        (vec![3u8; 70], 100, 1),
    ];
    assert_eq!(packets, expected);
}

#[test]
fn a_disk_that_fills_up_is_told_at_the_end_and_stops_no_frame() {
    let tap = Tap::new(Box::new(Full(1000)), "eth0").unwrap();
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let mut tapped = tap.wrap(a.queues.remove(0), 2048);
    let mut peer = b.queues.remove(0);
    let (mut near, mut far) = (Batch::new(&a.umem, 32), Batch::new(&b.umem, 32));
    for _ in 0..20 {
        send(&mut *tapped.tx, &mut near, &[vec![1u8; 500], vec![2u8; 500]]);
        assert_eq!(peer.rx.poll(&mut far), 2);
        far.clear();
    }
    let error = tap.finish().unwrap_err();
    assert_eq!(error.code(), "ENOSPC");
}

#[test]
fn a_disk_that_is_full_is_found_at_once() {
    assert_eq!(
        Tap::new(Box::new(Full(10)), "eth0").err().unwrap().code(),
        "ENOSPC"
    );
}

/// A file whose first write does not end until it is let go.
struct Stuck(Arc<Mutex<()>>, usize);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1 += 1;
        if self.1 > 1 {
            drop(self.0.lock().unwrap());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_does_not_keep_up_costs_captured_frames_only() {
    let gate = Arc::new(Mutex::new(()));
    let tap = Tap::new(Box::new(Stuck(Arc::clone(&gate), 0)), "eth0").unwrap();
    let (mut a, mut b) = pair(1, &UMEM, 1000).unwrap();
    let mut tapped = tap.wrap(a.queues.remove(0), 2048);
    let mut peer = b.queues.remove(0);
    let (mut near, mut far) = (Batch::new(&a.umem, 32), Batch::new(&b.umem, 32));
    let closed = gate.lock().unwrap();
    // Three times what the buffer holds, while the file is stuck: the queue never is.
    let packets = vec![vec![9u8; 1500]; 8];
    let rounds = 3 * BUFFER / (8 * 1500);
    for _ in 0..rounds {
        send(&mut *tapped.tx, &mut near, &packets);
        assert_eq!(peer.rx.poll(&mut far), 8);
        far.clear();
    }
    drop(closed);
    let captured = tap.finish().unwrap();
    assert_eq!(captured.written + captured.missed, 8 * rounds as u64);
    assert!(captured.missed > 0 && captured.written > 0);
}
