//! Interoperation with DPDK: our driver with its net_vhost, our device end with its net_virtio_user, in every layout.

mod testpmd;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::{Port, State, vhost, virtio};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::feature;
use testpmd::{Socket, Testpmd, is_here};

/// Longest that a test waits for testpmd, which takes its time to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Frames for packets that no ordinary one holds: more than wait for completions in two rings, of packets of which a
/// fifth is so long. testpmd says of a packed ring's buffers only once most of it is used that it is done with them.
const JUMBO_FRAMES: u32 = 256;

fn pool(jumbo_frames: u32) -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames: 4096,
        frame_size: 2048,
        jumbo_frames,
        pages: Pages::Ordinary,
    })
    .unwrap()
}

fn packet(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    bytes.extend((number as u32).to_be_bytes());
    bytes.extend((18..length.max(18)).map(|at| (at * 3 + number) as u8));
    bytes
}

fn swapped(packet: &[u8]) -> Vec<u8> {
    [&packet[6..12], &packet[..6], &packet[12..]].concat()
}

/// Sends packets by every queue and expects each back once, from testpmd, its MACs swapped and all else untouched.
fn there_and_back(port: &mut Port, lengths: &[usize]) {
    const PACKETS: usize = 600;
    let mut batch = Batch::new(&port.umem, 64);
    let deadline = Instant::now() + PATIENCE;
    for (index, pair) in port.queues.iter_mut().enumerate() {
        // testpmd loses what comes before it is ready: one packet at a time until the first is back.
        let probe = packet(1 << 20, 60);
        let (mut ready, mut pause) = (false, Duration::from_millis(20));
        while !ready {
            assert!(Instant::now() < deadline, "queue {index}: nothing comes back");
            let frame = batch.cache_mut().copy_in(&probe).unwrap();
            batch.push_send(frame, 0).unwrap();
            pair.tx.send(&mut batch);
            batch.clear();
            std::thread::sleep(pause);
            // Far fewer than a ring has room for, however long testpmd takes: they come back all at once.
            pause = (pause * 5 / 4).min(Duration::from_secs(1));
            pair.rx.poll(&mut batch);
            ready = !batch.is_empty();
            batch.clear();
        }
        let mut missing: BTreeSet<usize> = (0..PACKETS).collect();
        let mut next = 0;
        while !missing.is_empty() {
            assert!(
                Instant::now() < deadline,
                "queue {index}: {} packets are not back, the first is {:?}; {:?}",
                missing.len(),
                missing.first(),
                pair.rx.counters().totals()
            );
            // As many under way as every ring on the way holds.
            while next < PACKETS && next < PACKETS - missing.len() + 32 {
                let bytes = packet(next, lengths[next % lengths.len()]);
                let frame = batch.cache_mut().copy_in(&bytes).unwrap();
                batch.push_send(frame, 0).unwrap();
                next += 1;
            }
            // What finds no room in the ring comes in the next round.
            let waiting = batch.len();
            next -= waiting - pair.tx.send(&mut batch);
            batch.clear();
            pair.rx.poll(&mut batch);
            for at in 0..batch.len() {
                let bytes = batch.bytes(at);
                let number = u32::from_be_bytes(bytes[14..18].try_into().unwrap()) as usize;
                if number < PACKETS {
                    let expected = swapped(&packet(number, lengths[number % lengths.len()]));
                    assert!(bytes == expected, "queue {index}: packet {number} is changed");
                    assert!(missing.remove(&number), "queue {index}: packet {number} twice");
                }
            }
            batch.clear();
        }
        let totals = [pair.rx.counters().totals(), pair.tx.counters().totals()];
        for totals in totals {
            assert_eq!((totals.invalid_descriptor, totals.too_long), (0, 0));
        }
    }
}

/// What met what, in the words of docs/vhost-user.md.
fn row(ours: &str, theirs: &str, packed: bool, merging: bool, queues: u32) {
    let layout = if packed { "packed" } else { "split" };
    let merging = if merging { "merged" } else { "single" };
    println!(
        "INTEROP | {ours:6} | testpmd {theirs} | {layout:6} | {merging} buffers | {queues} queue(s) | ok |"
    );
}

const ALL: [(bool, bool, u32); 6] = [
    (false, false, 1),
    (false, true, 1),
    (true, false, 1),
    (true, true, 1),
    (false, true, 2),
    (true, true, 2),
];

#[test]
fn our_driver_with_net_vhost() {
    if !is_here("our_driver_with_net_vhost") {
        return;
    }
    for (packed, merging, queues) in ALL {
        let socket = Socket::new("net-vhost");
        let path = socket.0.display();
        let _device = Testpmd::start(&format!("net_vhost0,iface={path},queues={queues}"), queues);
        let config = virtio::Config {
            queues,
            without: if packed { 0 } else { feature::RING_PACKED },
            require: if packed { feature::RING_PACKED } else { 0 },
            ..virtio::Config::new(&socket.0)
        };
        let mut opened = virtio::open(&config, &pool(if merging { JUMBO_FRAMES } else { 0 })).unwrap();
        let features = opened.status.status().features;
        assert_eq!(features & feature::MRG_RXBUF != 0, merging);
        let lengths: &[usize] = if merging {
            &[60, 1514, 2000, 1536, 64]
        } else {
            &[60, 1514, 64]
        };
        there_and_back(&mut opened.port, lengths);
        row("driver", "net_vhost", packed, merging, queues);
    }
}

#[test]
fn our_device_with_net_virtio_user() {
    if !is_here("our_device_with_net_virtio_user") {
        return;
    }
    for (packed, merging, queues) in ALL {
        let socket = Socket::new("net-virtio-user");
        let path = socket.0.display();
        let config = vhost::Config {
            queues,
            ..vhost::Config::new(&socket.0)
        };
        let mut opened = vhost::open(&config, &pool(JUMBO_FRAMES)).unwrap();
        let device = format!(
            "net_virtio_user0,path={path},queues={queues},packed_vq={},mrg_rxbuf={}",
            u8::from(packed),
            u8::from(merging)
        );
        let _driver = Testpmd::start(&device, queues);
        // Its buffers have room for 2,048 bytes (testpmd's --mbuf-size less the headroom): the longer ones take two of
        // them, and five, and come back in as many pieces.
        let lengths: &[usize] = if merging {
            &[60, 1514, 2049, 64, 9000, 333]
        } else {
            &[60, 1514, 64, 333]
        };
        there_and_back(&mut opened.port, lengths);
        let features = opened.status.status().features;
        assert_eq!(features & feature::RING_PACKED != 0, packed);
        assert_eq!(features & feature::MRG_RXBUF != 0, merging);
        if !merging {
            let mut batch = Batch::new(&opened.port.umem, 64);
            let frame = batch.cache_mut().copy_in(&packet(0, 2049)).unwrap();
            batch.push_send(frame, 0).unwrap();
            let tx = &mut opened.port.queues[0].tx;
            assert_eq!((tx.send(&mut batch), tx.counters().totals().too_long), (0, 1));
        }
        row("device", "net_virtio_user", packed, merging, queues);
    }
}

#[test]
fn our_device_as_a_client_of_a_driver_that_listens() {
    if !is_here("our_device_as_a_client_of_a_driver_that_listens") {
        return;
    }
    for (packed, queues) in [(false, 1), (true, 2)] {
        let socket = Socket::new("net-virtio-server");
        let path = socket.0.clone();
        let device = format!(
            "net_virtio_user0,path={},server=1,queues={queues},packed_vq={}",
            path.display(),
            u8::from(packed)
        );
        // A driver that listens waits for its device before it is ready.
        let driver = std::thread::spawn(move || Testpmd::start(&device, queues));
        let deadline = Instant::now() + PATIENCE;
        let config = vhost::Config {
            server: false,
            queues,
            ..vhost::Config::new(&path)
        };
        let mut opened = loop {
            match vhost::open(&config, &pool(JUMBO_FRAMES)) {
                Ok(opened) => break opened,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let _driver = driver.join().unwrap();
        there_and_back(&mut opened.port, &[60, 1514, 4000]);
        let features = opened.status.status().features;
        assert_eq!(features & feature::RING_PACKED != 0, packed);
        row("device", "net_virtio_user, which listens", packed, true, queues);
    }
}

#[test]
fn a_net_vhost_that_dies_and_comes_again_costs_no_frame_that_waited() {
    if !is_here("a_net_vhost_that_dies_and_comes_again_costs_no_frame_that_waited") {
        return;
    }
    for (packed, queues) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let socket = Socket::new("net-vhost-again");
        let device = format!("net_vhost0,iface={},queues={queues}", socket.0.display());
        let mut first = Testpmd::start(&device, queues);
        let config = virtio::Config {
            queues,
            without: if packed { 0 } else { feature::RING_PACKED },
            require: if packed { feature::RING_PACKED } else { 0 },
            ..virtio::Config::new(&socket.0)
        };
        let mut opened = virtio::open(&config, &pool(0)).unwrap();
        there_and_back(&mut opened.port, &[60]);
        first.kill();
        let deadline = Instant::now() + PATIENCE;
        while opened.status.status().connected {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(10));
        }
        // Sent while nobody is there.
        let mut batch = Batch::new(&opened.port.umem, 64);
        for pair in &mut opened.port.queues {
            for number in 0..50 {
                let frame = batch.cache_mut().copy_in(&packet(number, 60)).unwrap();
                batch.push_send(frame, 0).unwrap();
            }
            assert_eq!(pair.tx.send(&mut batch), 50);
            batch.clear();
            pair.rx.poll(&mut batch);
            batch.clear();
            assert_ne!(pair.rx.state(), State::Up);
        }
        let _ = std::fs::remove_file(&socket.0);
        let mut second = Testpmd::at_its_prompt(&device, queues);
        // It forwards once it has every ring, and buffers for what comes back: testpmd drops what it cannot send on,
        // which would be no loss of ours.
        for pair in &mut opened.port.queues {
            while pair.rx.state() != State::Up {
                assert!(Instant::now() < deadline, "{:?}", opened.status.status());
                pair.rx.poll(&mut batch);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        second.type_line("start");
        for (index, pair) in opened.port.queues.iter_mut().enumerate() {
            let mut missing: BTreeSet<u32> = (0..50).collect();
            while !missing.is_empty() {
                assert!(Instant::now() < deadline, "pair {index}: {missing:?} are lost");
                pair.tx.send(&mut batch);
                pair.rx.poll(&mut batch);
                for at in 0..batch.len() {
                    missing.remove(&u32::from_be_bytes(batch.bytes(at)[14..18].try_into().unwrap()));
                }
                batch.clear();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        row(
            "driver",
            "net_vhost, killed and started again",
            packed,
            false,
            queues,
        );
    }
}
