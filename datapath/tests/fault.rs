//! The same seed does the same, the rates are kept, and no frame is lost to the pool.

use bifurcate_datapath::device::fault::{Faults, wrap};
use bifurcate_datapath::device::loopback::pair;
use bifurcate_datapath::frame::{Batch, Pages, UmemConfig};

const UMEM: UmemConfig = UmemConfig {
    frames: 512,
    frame_size: 2048,
    jumbo_frames: 0,
    pages: Pages::Ordinary,
};

/// Sends numbered packets through a faulty queue; gives, poll by poll, what arrived, and what was lost.
fn through(faults: Faults, packets: u32, polls: usize) -> (Vec<Vec<Vec<u8>>>, u64) {
    let (mut a, mut b) = pair(1, &UMEM, 10_000).unwrap();
    let mut wire = Batch::new(&a.umem, 256);
    let mut sender = a.queues.remove(0).tx;
    for n in 0..packets {
        let mut packet = [0u8; 60];
        packet[..4].copy_from_slice(&n.to_be_bytes());
        let frame = wire.cache_mut().copy_in(&packet).unwrap();
        wire.push_send(frame, 0).unwrap();
        assert_eq!(sender.send(&mut wire), 1);
        wire.clear();
    }
    let mut faulty = wrap(b.queues.remove(0), faults);
    let mut batch = Batch::new(&b.umem, 8);
    let seen = (0..polls)
        .map(|_| {
            let got = faulty.pair.rx.poll(&mut batch);
            assert_eq!(got, batch.len());
            let packets = (0..got).map(|i| batch.bytes(i).to_vec()).collect();
            batch.clear();
            packets
        })
        .collect();
    (seen, faulty.counters[0].totals().dropped)
}

fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[..4].try_into().unwrap())
}

#[test]
fn without_faults_everything_arrives_as_it_was() {
    let (seen, lost) = through(Faults::default(), 100, 20);
    let numbers: Vec<u32> = seen.iter().flatten().map(|p| number(p)).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert_eq!(lost, 0);
}

#[test]
fn the_same_seed_does_the_same_and_another_does_not() {
    let faults = |seed| Faults {
        drop: 10_000,
        corrupt: 10_000,
        delay: 10_000,
        delay_polls: 3,
        seed,
    };
    let first = through(faults(7), 200, 60);
    assert_eq!(first, through(faults(7), 200, 60));
    assert_ne!(first, through(faults(8), 200, 60));
}

#[test]
fn a_quarter_is_dropped_when_asked_and_counted() {
    let faults = Faults {
        drop: 16_384,
        ..Faults::default()
    };
    let (seen, lost) = through(faults, 4000, 600);
    let arrived = seen.iter().flatten().count() as u64;
    assert_eq!(arrived + lost, 4000);
    assert!((900..1100).contains(&lost), "{lost} of 4000");
}

#[test]
fn a_corrupted_frame_differs_in_one_bit() {
    let faults = Faults {
        corrupt: u16::MAX,
        ..Faults::default()
    };
    let (seen, _) = through(faults, 50, 10);
    for (n, packet) in seen.iter().flatten().enumerate() {
        let mut clean = [0u8; 60];
        clean[..4].copy_from_slice(&(n as u32).to_be_bytes());
        let bits: u32 = packet.iter().zip(clean).map(|(a, b)| (a ^ b).count_ones()).sum();
        // One frame in 65,536 is spared.
        assert!(bits <= 1);
    }
    assert!(
        seen.iter()
            .flatten()
            .any(|p| number(p) > 50 || p[4..].iter().any(|&b| b != 0))
    );
}

#[test]
fn a_delayed_frame_comes_when_it_is_due_and_before_later_ones() {
    let faults = Faults {
        delay: 32_768,
        delay_polls: 2,
        seed: 3,
        ..Faults::default()
    };
    let (seen, lost) = through(faults, 64, 40);
    assert_eq!(lost, 0);
    let mut numbers: Vec<u32> = seen.iter().flatten().map(|p| number(p)).collect();
    assert_eq!(numbers.len(), 64, "none stays behind");
    assert!(!numbers.is_sorted());
    numbers.sort_unstable();
    assert_eq!(numbers, (0..64).collect::<Vec<_>>());
    // Eight arrive a poll; what was not held arrives with the first, the others two polls later.
    let late: Vec<u32> = seen[2].iter().map(|p| number(p)).filter(|&n| n < 8).collect();
    assert_eq!(late.len() + seen[0].len(), 8);
}

#[test]
fn what_is_to_be_sent_is_struck_too() {
    let (mut a, _b) = pair(1, &UMEM, 10_000).unwrap();
    let faults = Faults {
        drop: 32_768,
        ..Faults::default()
    };
    let mut faulty = wrap(a.queues.remove(0), faults);
    let mut batch = Batch::new(&a.umem, 256);
    batch.fill_free(200, 60);
    batch.send_all(0);
    batch.sending_to(0);
    let sent = faulty.pair.tx.send(&mut batch) as u64;
    assert_eq!(sent + faulty.counters[1].totals().dropped, 200);
    assert!((60..140).contains(&sent), "{sent} of 200");
    assert_eq!(batch.left(), 0);
}
