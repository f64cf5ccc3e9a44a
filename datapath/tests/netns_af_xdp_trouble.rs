//! AF_XDP on veth when something is amiss: a queue that cannot be had, a kernel that takes nothing, one that is not asked.

mod veth;

use std::os::fd::AsFd;
use std::sync::Arc;

use bifurcate_datapath::device::af_xdp::{self, Config, Opened, ZeroCopy};
use bifurcate_datapath::device::{QueuePair, TxQueue};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_linux::bpf::XdpMode;
use bifurcate_linux::fake;
use veth::{Lab, PORT, Steering, payload, turn_around, udp_frame, until};

fn pool() -> Arc<Umem> {
    Umem::map(&UmemConfig {
        frames: 512,
        pages: Pages::Ordinary,
        ..UmemConfig::default()
    })
    .unwrap()
}

fn config(queues: &[u32]) -> Config {
    Config {
        queues: queues.to_vec(),
        ring_size: 128,
        zero_copy: ZeroCopy::Off,
        ..Config::new("card")
    }
}

fn open(lab: &Lab, config: &Config, umem: &Arc<Umem>) -> bifurcate_linux::Result<Opened> {
    lab.near.within(|| af_xdp::open(config, umem, None))
}

/// Sends `count` datagrams to the far end; gives how many the queue took.
fn send(tx: &mut dyn TxQueue, batch: &mut Batch, count: usize) -> usize {
    for number in 0..count {
        let mut bytes = udp_frame(&[number as u8; 8], None);
        turn_around(&mut bytes);
        let frame = batch.cache_mut().copy_in(&bytes).unwrap();
        batch.push_send(frame, 0).unwrap();
    }
    batch.sending_to(0);
    let took = tx.send(batch);
    batch.clear();
    took
}

#[test]
fn a_queue_that_cannot_be_had_costs_the_pool_no_frame() {
    let Some(lab) = Lab::new("a_queue_that_cannot_be_had_costs_the_pool_no_frame", 2) else {
        return;
    };
    let umem = pool();
    for _ in 0..3 {
        assert_eq!(
            open(&lab, &config(&[0, 1, 9]), &umem).err().unwrap().code(),
            "EINVAL"
        );
        assert_eq!(umem.in_depot().0, 512);
    }
    open(&lab, &config(&[0, 1]), &umem).unwrap();
}

#[test]
fn frames_leave_also_when_the_kernel_is_not_to_say_that_it_sleeps() {
    let Some(lab) = Lab::new(
        "frames_leave_also_when_the_kernel_is_not_to_say_that_it_sleeps",
        1,
    ) else {
        return;
    };
    let umem = pool();
    let told = Config {
        need_wakeup: false,
        ..config(&[0])
    };
    let mut opened = open(&lab, &told, &umem).unwrap();
    let listener = lab.client_from(9999, PORT);
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { tx, .. } = &mut opened.port.queues[0];
    assert_eq!(send(tx.as_mut(), &mut batch, 20), 20);
    let mut got = [0; 64];
    for number in 0..20 {
        assert_eq!(listener.recv(&mut got).unwrap(), 8);
        assert_eq!(got[0], number);
    }
    assert!(!tx.is_waiting());
}

#[test]
fn frames_that_the_kernel_has_no_room_for_are_known_to_wait_and_leave_later() {
    let Some(lab) = Lab::new(
        "frames_that_the_kernel_has_no_room_for_are_known_to_wait_and_leave_later",
        1,
    ) else {
        return;
    };
    let umem = pool();
    let mut opened = open(&lab, &config(&[0]), &umem).unwrap();
    let listener = lab.client_from(9999, PORT);
    let mut batch = Batch::new(&umem, 32);
    let QueuePair { tx, .. } = &mut opened.port.queues[0];
    const EAGAIN: i32 = 11;
    const SENDTO: i64 = 44;
    let full = fake::set(|call| (call.number == SENDTO).then_some(Err(EAGAIN)));
    assert_eq!(send(tx.as_mut(), &mut batch, 5), 5);
    assert!(tx.is_waiting());
    drop(full);
    assert_eq!(send(tx.as_mut(), &mut batch, 0), 0);
    assert!(!tx.is_waiting());
    let mut got = [0; 64];
    for number in 0..5 {
        listener.recv(&mut got).unwrap();
        assert_eq!(got[0], number);
    }
}

#[test]
fn long_frames_without_a_jumbo_frame_are_counted_and_give_their_chunks_back() {
    let Some(lab) = Lab::new(
        "long_frames_without_a_jumbo_frame_are_counted_and_give_their_chunks_back",
        1,
    ) else {
        return;
    };
    lab.mtu(9000);
    let umem = Umem::map(&UmemConfig {
        frames: 512,
        jumbo_frames: 1,
        pages: Pages::Ordinary,
        ..UmemConfig::default()
    })
    .unwrap();
    let config = Config {
        multi_buffer: true,
        ..config(&[0])
    };
    let mut opened = open(&lab, &config, &umem).unwrap();
    let steering = Steering::new(&lab, "card", XdpMode::Driver);
    steering.insert(0, opened.sockets[0].as_fd());
    let client = lab.client(PORT);
    let mut batch = Batch::new(&umem, 32);
    let held = batch.cache_mut().take_jumbo().unwrap();
    let QueuePair { rx, .. } = &mut opened.port.queues[0];
    // Far more chunks than the pool has, if any were lost.
    for number in 0..300u32 {
        client.send(&[7; 8900]).unwrap();
        client.send(&number.to_ne_bytes()).unwrap();
        until("the short frame", || rx.poll(&mut batch) > 0);
        assert_eq!(
            (batch.len(), payload(batch.bytes(0))),
            (1, &number.to_ne_bytes()[..])
        );
        batch.clear();
    }
    let counted = rx.counters().totals();
    assert_eq!(
        (counted.received, counted.no_frames, counted.invalid_descriptor),
        (300, 300, 0)
    );
    // With a jumbo frame at hand they arrive again.
    batch.cache_mut().give(held);
    client.send(&[9; 8900]).unwrap();
    until("the long frame", || rx.poll(&mut batch) > 0);
    assert_eq!(payload(batch.bytes(0)), [9; 8900]);
    batch.clear();
    drop((steering, opened, batch));
    until("every frame is back in the pool", || umem.in_depot() == (512, 1));
}
